"""Scores with bootstrap intervals over patients, computed on the host. Needs only NumPy, pycocotools and threadpoolctl.

Letters: N images, T findings or classes, S studies, L levels of IoU, R resamples of the bootstrap. `bootstrap.py`
explains how scores are computed as functions of weights_NR. `about` is the metadata of a dataset: `findings` and their
`relation` ('independent', 'exclusive' or 'ordinal'), `value`, `mask` (its classes) and `box_classes`.
"""

from mtpret_jax.evaluation.metrics.bootstrap import bootstrap_interval
from mtpret_jax.evaluation.metrics.predictions import read_predictions, write_predictions
from mtpret_jax.evaluation.metrics.scoring import Metrics, NotFinite, describe_undefined, score

__all__ = ['Metrics', 'NotFinite', 'bootstrap_interval', 'describe_undefined', 'read_predictions', 'score',
           'write_predictions']
