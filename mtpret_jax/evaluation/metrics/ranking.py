"""AUROC and average precision. Sorting once serves all resamples."""

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide


def make_ranking_scores(present_N: np.ndarray, score_N: np.ndarray, valid_N: np.ndarray) -> WeightedScores:
  """'AUC' and 'AP', both in 0..1, over the images with `valid_N`; NaN where only one class has weight.

  AUC is the area under the ROC curve by the trapezoid rule. AP sums precision times the increase in recall over the
  distinct scores. They equal scikit-learn's `roc_auc_score` and `average_precision_score` with `sample_weight`.

  Both need sums only at scores that a positive has, so one running sum over all images serves both.
  """
  order = np.flatnonzero(valid_N)
  order = order[np.argsort(-score_N[order], kind='stable')]
  present, score = present_N[order] > 0, score_N[order]
  if not 0 < present.sum() < len(present):
    return lambda weights_NR: dict.fromkeys(('AUC', 'AP'), np.full(weights_NR.shape[1], np.nan))
  # Images of equal score form a tie. Keep the ties with a positive, and the first positive of each.
  starts = np.flatnonzero(np.diff(score, prepend=np.inf))
  tie = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(score)))
  ties, first = np.unique(tie[present], return_index=True)
  last = np.append(starts[1:], len(score))[ties] - 1
  positives, before = order[present], starts[ties] - 1

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    drawn_NR = np.cumsum(weights_NR[order], axis=0)
    through = drawn_NR[last]  # images with this score or a higher one
    until = np.where(before[:, None] >= 0, drawn_NR[before], 0)  # images with a higher score
    hits = np.add.reduceat(weights_NR[positives], first, axis=0)
    hits_through = np.cumsum(hits, axis=0)
    positive = hits_through[-1]
    negative = drawn_NR[-1] - positive
    # negatives with a higher score, and half of those with the same
    false_positives = (through - hits_through + until - (hits_through - hits)) / 2
    area = divide((hits * (negative - false_positives)).sum(0), positive * negative)
    precision = divide((hits * hits_through / np.maximum(through, 1)).sum(0), positive)
    return {'AUC': area, 'AP': np.where(negative > 0, precision, np.nan)}

  return compute
