"""Cohen's kappa under many weightings."""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide


def make_kappa(truth_N, decided_N, classes, counts_N, *, power):
  """measure(weights_NR) -> (R,) in -1..1, over the rows that count: agreement beyond chance (Cohen 1960), where
  classes d apart cost d ** power: 0 is the plain kappa, 2 the quadratic one (Cohen 1968). NaN where one class is all
  that is seen."""
  apart_TT = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(float)
  cost_TT = np.where(apart_TT > 0, apart_TT ** power, 0)
  truth_TN, decided_TN = (((labels_N == np.arange(classes)[:, None]) & counts_N).astype(float)
                          for labels_N in (truth_N, decided_N))
  cost_N, counts_N = cost_TT[truth_N, decided_N] * counts_N, counts_N.astype(float)

  def measure(weights_NR):
    seen = (cost_N @ weights_NR) * (counts_N @ weights_NR)
    expected = ((truth_TN @ weights_NR) * (cost_TT @ (decided_TN @ weights_NR))).sum(0)
    return 1 - divide(seen, expected)

  return measure
