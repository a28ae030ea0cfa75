"""Batch norm over groups of the batch.

Under `jax.jit` plain batch norm takes its statistics over the global batch. That costs collectives in every layer and
lets MoCo cheat, since a query and its key then share statistics (He, facebookresearch/moco issue 46). Here the batch
is cut into groups of neighbouring rows that lie inside one device: the result is the published per-GPU batch norm,
on any number of devices, without communication.

Letters: G groups, N images in a group, H rows, W columns, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.Module):
  """Batch norm (Ioffe and Szegedy 2015), statistics in f32, running variance unbiased as in PyTorch.

  `groups=None` normalises by the running statistics and changes nothing. `groups=G` normalises each of the G groups
  by its own mean and variance and moves the running statistics toward the mean over groups: `momentum` is the weight
  of the new value (PyTorch's convention, 0.1 there).
  """

  def __init__(self, channels, *, momentum=0.1, epsilon=1e-5):
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))
    self.momentum, self.epsilon = momentum, epsilon

  def __call__(self, images_BHWC, *, groups=None):
    if groups is None:
      return self.normalise(images_BHWC, widen(self.mean[...], 4), widen(self.var[...], 4))
    batch, height, width, channels = images_BHWC.shape
    images_GNHWC = images_BHWC.reshape(groups, batch // groups, height, width, channels)
    mean_G111C, var_G111C = group_statistics(images_GNHWC, widen(self.mean[...], 5))
    self.remember(mean_G111C, var_G111C, count=images_GNHWC.size // (groups * channels))
    return self.normalise(images_GNHWC, mean_G111C, var_G111C).reshape(images_BHWC.shape)

  def normalise(self, images, mean, var):
    factor = jax.lax.rsqrt(var + self.epsilon) * widen(self.scale[...], images.ndim)
    return ((images - mean) * factor + widen(self.bias[...], images.ndim)).astype(images.dtype)

  def remember(self, mean_G111C, var_G111C, *, count):
    """Moves the running statistics; `count` values went into each mean."""
    unbiased = count / max(count - 1, 1)
    mean_C = jax.lax.stop_gradient(mean_G111C.mean((0, 1, 2, 3)))
    var_C = jax.lax.stop_gradient(var_G111C.mean((0, 1, 2, 3))) * unbiased
    self.mean[...] = (1 - self.momentum) * self.mean[...] + self.momentum * mean_C
    self.var[...] = (1 - self.momentum) * self.var[...] + self.momentum * var_C


def widen(vector_C, rank):
  """(C,) -> (1, ..., 1, C), so that nothing is broadcast over ranks unseen."""
  return vector_C.reshape((1,) * (rank - 1) + (-1,))


def group_statistics(images_GNHWC, near_1111C):
  """Mean and (biased) variance per group and channel in f32, (G, 1, 1, 1, C) each, in one pass over the images.

  `near` is a guess of the mean, here the running one: where a mean is large beside the deviation, E[x^2] - E[x]^2
  loses its digits, and what is left of x after the guess does not. Of a pooled map, a few values far from zero, a
  second pass costs nothing.
  """
  rest = images_GNHWC.astype(jnp.float32) - near_1111C
  mean = rest.mean((1, 2, 3), keepdims=True)
  if rest.shape[2:4] == (1, 1):
    return near_1111C + mean, jnp.square(rest - mean).mean((1, 2, 3), keepdims=True)
  square = jnp.square(rest).mean((1, 2, 3), keepdims=True)
  return near_1111C + mean, jnp.maximum(square - jnp.square(mean), 0.0)
