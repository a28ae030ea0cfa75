"""Batch norm over groups of the batch.

Under `jax.jit` plain batch norm takes its statistics over the global batch. That costs collectives in every layer and
lets MoCo cheat, since a query and its key then share statistics (He, facebookresearch/moco issue 46). Here the batch
is cut into groups of neighbouring rows that lie inside one device: the result is the published per-GPU batch norm,
on any number of devices, without communication.

Letters: B images, G groups, H rows, W columns, C channels.
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
    mean_GC, var_GC = group_statistics(images_BHWC, groups, self.mean[...])
    self.remember(mean_GC, var_GC, count=images_BHWC.size // (groups * images_BHWC.shape[-1]))
    images = len(images_BHWC)
    return self.normalise(images_BHWC, to_images(mean_GC, images), to_images(var_GC, images))

  def normalise(self, images, mean, var):
    factor = jax.lax.rsqrt(var + self.epsilon) * widen(self.scale[...], images.ndim)
    return ((images - mean) * factor + widen(self.bias[...], images.ndim)).astype(images.dtype)

  def remember(self, mean_GC, var_GC, *, count):
    """Moves the running statistics; `count` values went into each mean."""
    unbiased = count / max(count - 1, 1)
    mean_C = jax.lax.stop_gradient(mean_GC.mean(0))
    var_C = jax.lax.stop_gradient(var_GC.mean(0)) * unbiased
    self.mean[...] = (1 - self.momentum) * self.mean[...] + self.momentum * mean_C
    self.var[...] = (1 - self.momentum) * self.var[...] + self.momentum * var_C


def widen(vector_C, rank):
  """(C,) -> (1, ..., 1, C), so that nothing is broadcast over ranks unseen."""
  return vector_C.reshape((1,) * (rank - 1) + (-1,))


def to_images(value_GC, images):
  """(G, C) -> (B, 1, 1, C): each image's own, groups being of neighbouring images."""
  return jnp.repeat(value_GC, images // len(value_GC), axis=0)[:, None, None]


def group_statistics(images_BHWC, groups, near_C):
  """Mean and (biased) variance per group and channel in f32, (G, C) each, in one pass over the images.

  `near` is a guess of the mean, here the running one: where a mean is large beside the deviation, E[x^2] - E[x]^2
  loses its digits, and what is left of x after the guess does not. Of a pooled map, a few values far from zero, a
  second pass costs nothing. Only what is left of each image after the sum over its pixels is cut into groups: images
  of another shape than the convolution's would keep XLA from fusing the two (a fifth more memory traffic on a TPU).
  """
  def average(images_BHWC):
    return images_BHWC.mean((1, 2)).reshape(groups, -1, images_BHWC.shape[-1]).mean(1)

  rest = images_BHWC.astype(jnp.float32) - widen(near_C, 4)
  mean_GC = average(rest)
  if rest.shape[1:3] == (1, 1):
    return near_C[None] + mean_GC, average(jnp.square(rest - to_images(mean_GC, len(rest))))
  return near_C[None] + mean_GC, jnp.maximum(average(jnp.square(rest)) - jnp.square(mean_GC), 0.0)
