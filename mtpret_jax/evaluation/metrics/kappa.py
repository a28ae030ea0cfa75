"""Cohen's kappa, plain and quadratically weighted."""

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide


def make_kappa(truth_N: np.ndarray, predicted_N: np.ndarray, classes: int, valid_N: np.ndarray, *,
               power: int) -> WeightedScore:
  """Cohen's kappa in -1..1 over the images with `valid_N`: agreement beyond chance.

  Confusing two classes that lie d apart costs d ** power. Power 0 is the plain kappa (Cohen 1960), 2 the quadratic one
  (Cohen 1968). NaN where truth and prediction are one and the same class throughout.

  Args:
    truth_N, predicted_N: class indices, int.
  """
  apart_TT = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(float)
  cost_TT = np.where(apart_TT > 0, apart_TT ** power, 0)
  truth_TN, predicted_TN = (((labels_N == np.arange(classes)[:, None]) & valid_N).astype(float)
                            for labels_N in (truth_N, predicted_N))
  cost_N, valid_N = cost_TT[truth_N, predicted_N] * valid_N, valid_N.astype(float)

  def compute(weights_NR: np.ndarray) -> np.ndarray:
    observed_R = (cost_N @ weights_NR) * (valid_N @ weights_NR)
    expected_R = ((truth_TN @ weights_NR) * (cost_TT @ (predicted_TN @ weights_NR))).sum(0)
    return 1 - divide(observed_R, expected_R)

  return compute
