"""Arithmetic on scores that may be undefined. NaN stands for undefined."""

import numpy as np


def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
  """top / bottom, and NaN where bottom is 0."""
  return np.divide(top, bottom, out=np.full(np.broadcast_shapes(np.shape(top), np.shape(bottom)), np.nan),
                   where=np.asarray(bottom) != 0)


def average(values_TR: np.ndarray | list[np.ndarray]) -> np.ndarray:
  """(R,) mean over the first axis, without the values that are NaN; NaN if all are."""
  return divide(np.nansum(values_TR, axis=0), (~np.isnan(values_TR)).sum(0).astype(float))
