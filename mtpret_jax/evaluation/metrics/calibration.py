"""Expected calibration error: how far stated probabilities are from observed shares."""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide

BINS = 15  # of equal width, as in Guo et al. 2017


def make_calibration(right_N, probability_N, counts_N):
  """measure(weights_NR) -> (R,) in 0..1: the mean over the rows that count of |mean probability - share of `right`| of
  their bin, (0, 1/15] to (14/15, 1] (Naeini et al. 2015; Guo et al. 2017, section 2)."""
  bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability_N)
  excess_BN = (bins == np.arange(BINS)[:, None]) * np.where(counts_N, probability_N - right_N, 0)
  counts_N = counts_N.astype(float)
  return lambda weights_NR: divide(np.abs(excess_BN @ weights_NR).sum(0), counts_N @ weights_NR)
