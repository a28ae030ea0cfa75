"""Weights and inputs that need no file: each array is drawn from its own name, the same in every program.

`RandomState` because its stream is frozen for good (NumPy's NEP 19); `default_rng` may change with NumPy.
"""

import zlib

import numpy as np


def normal(name, shape):
  return stream(name).standard_normal(shape).astype(np.float32)


def uniform(name, shape, low, high):
  return stream(name).uniform(low, high, shape).astype(np.float32)


def stream(name):
  return np.random.RandomState(zlib.crc32(name.encode()))


def weight(name, shape):
  """The parameter of torchvision's (or our transcription's) `name`, of a size that keeps activations near one.
  Batch norm's are far from their usual ones and zeros, so that a swap of two of them cannot pass unseen."""
  if len(shape) == 4:
    return normal(name, shape) * np.float32(np.sqrt(2 / (shape[0] * shape[2] * shape[3])))
  if len(shape) == 2:
    return uniform(name, shape, -1, 1) * np.float32(shape[1] ** -0.5)
  if name.endswith('bn3.weight'):  # as trained: small on the residual branch, else f32 rounding grows block by block
    return uniform(name, shape, 0.1, 0.3)
  if name.endswith(('running_var', 'weight')):
    return uniform(name, shape, 0.5, 1.5)
  return normal(name, shape) * np.float32(0.1)


def sample(array, count=512):
  """At most `count` values spread evenly over `array`, in its order."""
  array = np.asarray(array, np.float32).ravel()
  return array[np.linspace(0, array.size - 1, min(count, array.size)).astype(int)]
