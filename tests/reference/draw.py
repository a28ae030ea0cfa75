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
  """The parameter of torchvision's (or our transcription's) `name`.

  Batch norm's are far from their usual ones and zeros, so that a swap of two of them cannot pass unseen. They keep
  most ReLUs on and the residual branches weak, so that f32 rounding stays rounding: after ten steps of MoCo PyTorch
  in f32 is within 1e-6 of PyTorch in f64. With scales about one and biases about zero it is 1e-3 away, since rounding
  turns ReLUs on and off and every step multiplies that tenfold.
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
