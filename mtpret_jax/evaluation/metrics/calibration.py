"""Expected calibration error (ECE): how far predicted probabilities are from observed frequencies."""

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide

BINS = 15  # of equal width, as in Guo et al. 2017


def make_calibration_error(correct_N: np.ndarray, probability_N: np.ndarray, valid_N: np.ndarray) -> WeightedScore:
  """The ECE in 0..1 over the images with `valid_N` (Naeini et al. 2015; Guo et al. 2017, section 2).

  `correct_N` is 1 where the event occurred that `probability_N` predicts. The bins are (0, 1/15] to (14/15, 1]; the
  error of a bin is |mean probability - share of correct|, weighted by the number of its images."""
  bins_N = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability_N)
  excess_BN = (bins_N == np.arange(BINS)[:, None]) * np.where(valid_N, probability_N - correct_N, 0)
  valid_N = valid_N.astype(float)
  return lambda weights_NR: divide(np.abs(excess_BN @ weights_NR).sum(0), valid_N @ weights_NR)
