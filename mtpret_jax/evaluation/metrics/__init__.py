"""Scores and their intervals, computed on the host. numpy, scikit-learn and pycocotools only.

Letters: N images, T findings or classes, R resamples. A resample is a column of integer weights: how often each image
is drawn. Every score is a function of such weights, so that a thousand resamples are a few matrix products.
"""

from mtpret_jax.evaluation.metrics.bootstrap import bootstrap_interval
from mtpret_jax.evaluation.metrics.predictions import read_predictions, write_predictions
from mtpret_jax.evaluation.metrics.report import align, describe, write_scores
from mtpret_jax.evaluation.metrics.scoring import score

__all__ = ['align', 'bootstrap_interval', 'describe', 'read_predictions', 'score', 'write_predictions', 'write_scores']
