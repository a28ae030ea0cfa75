"""Scores of one finding that is present or absent."""

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.evaluation.metrics.ranking import make_ranking_scores


def make_finding_scores(present_N: np.ndarray, score_N: np.ndarray, predicted_N: np.ndarray,
                        valid_N: np.ndarray) -> WeightedScores:
  """'AUC', 'AP', 'accuracy', 'sensitivity' and 'specificity' in 0..1, over the images with `valid_N`.

  `predicted_N` bool is the predicted label, see `threshold_metrics.predict_labels`."""
  compute_ranking = make_ranking_scores(present_N, score_N, valid_N)
  positive_N, negative_N = valid_N & (present_N > 0), valid_N & (present_N <= 0)
  rows_4N = np.stack([positive_N, negative_N, positive_N & predicted_N, negative_N & ~predicted_N]).astype(float)

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    positives, negatives, true_positives, true_negatives = rows_4N @ weights_NR
    return compute_ranking(weights_NR) | {
      'accuracy': divide(true_positives + true_negatives, positives + negatives),
      'sensitivity': divide(true_positives, positives),
      'specificity': divide(true_negatives, negatives)}

  return compute
