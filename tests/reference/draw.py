"""Random weights and inputs without files: the name of an array is its seed, so that PyTorch's side draws the same.

`RandomState`, because its stream is frozen (NumPy's NEP 19), while `default_rng` may change with NumPy.
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
  """The parameter called `name` in torchvision, or in our MoCo transcription.

  Batch-norm parameters are far from one and zero, so that a swap of two of them is detected. They keep most ReLUs on
  and the residual branches weak, so that rounding errors stay small: after ten steps of MoCo, PyTorch in f32 is within
  1e-6 of PyTorch in f64. With scales near one and biases near zero it is 1e-3 away, because rounding switches ReLUs and
  every step multiplies the difference by ten.
  """
  if len(shape) == 4:
    return normal(name, shape) * np.float32(np.sqrt(2 / (shape[0] * shape[2] * shape[3])))
  if len(shape) == 2:
    return uniform(name, shape, -1, 1) * np.float32(shape[1] ** -0.5)
  if name.endswith('running_var'):
    return uniform(name, shape, 0.5, 1.5)
  if name.endswith('running_mean') or name.startswith('fc.'):
    return normal(name, shape) * np.float32(0.1)
  if name.endswith('bias'):
    return uniform(name, shape, 0.2, 0.6)
  return uniform(name, shape, 0.5, 1.0) * np.float32(0.2 if name.endswith(('bn2.weight', 'bn3.weight')) else 1)


def sample(array, count=512):
  """At most `count` values spread evenly over `array`, in its order."""
  array = np.asarray(array, np.float32).ravel()
  return array[np.linspace(0, array.size - 1, min(count, array.size)).astype(int)]
