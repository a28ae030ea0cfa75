"""Arithmetic on scores that may be undefined, which NaN stands for."""

import numpy as np


def divide(top, bottom):
  """top / bottom, NaN where bottom is 0."""
  return np.divide(top, bottom, out=np.full(np.broadcast_shapes(np.shape(top), np.shape(bottom)), np.nan),
                   where=np.asarray(bottom) != 0)


def average(values_TR):
  """(R,) mean over what is not NaN; NaN where all are."""
  return divide(np.nansum(values_TR, axis=0), (~np.isnan(values_TR)).sum(0).astype(float))
