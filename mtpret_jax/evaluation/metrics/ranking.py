"""Area under the ROC curve and average precision under many weightings, from one sort."""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide


def make_ranking(present_N, score_N, counts_N):
  """measure(weights_NR) -> {'AUC': (R,), 'AP': (R,)}, both in 0..1, over the rows that count.

  The ROC curve's area by the trapezoid rule, average precision as the sum of precision times the rise of recall over
  the distinct scores: scikit-learn's `roc_auc_score` and `average_precision_score` with `sample_weight`. Both are NaN
  where a weighting leaves one class only.

  Sums are needed at the scores that positives have, so one running sum over all images serves both.
  """
  order = np.flatnonzero(counts_N)
  order = order[np.argsort(-score_N[order], kind='stable')]
  present, score = present_N[order] > 0, score_N[order]
  if not 0 < present.sum() < len(present):
    return lambda weights_NR: dict.fromkeys(('AUC', 'AP'), np.full(weights_NR.shape[1], np.nan))
  starts = np.flatnonzero(np.diff(score, prepend=np.inf))  # of runs of equal scores
  run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(score)))
  runs, first = np.unique(run[present], return_index=True)  # with positives, and the first positive of each
  last = np.append(starts[1:], len(score))[runs] - 1
  positives, before = order[present], starts[runs] - 1

  def measure(weights_NR):
    drawn_NR = np.cumsum(weights_NR[order], axis=0)
    through = drawn_NR[last]
    until = np.where(before[:, None] >= 0, drawn_NR[before], 0)
    hits = np.add.reduceat(weights_NR[positives], first, axis=0)
    hits_through = np.cumsum(hits, axis=0)
    positive = hits_through[-1]
    negative = drawn_NR[-1] - positive
    misses = (through - hits_through + until - (hits_through - hits)) / 2  # negatives above, half of those level
    area = divide((hits * (negative - misses)).sum(0), positive * negative)
    precision = divide((hits * hits_through / np.maximum(through, 1)).sum(0), positive)
    return {'AUC': area, 'AP': np.where(negative > 0, precision, np.nan)}

  return measure
