"""Batch norm over groups of the batch.

Under `jax.jit`, plain batch norm takes its statistics over the global batch. That costs a collective in every layer,
and it lets MoCo cheat, because a query and its key then share statistics (facebookresearch/moco issue 46). Here the
batch is cut into groups of neighbouring rows, each inside one device. This is the per-GPU batch norm of the published
code, on any number of devices and without communication.

Letters: B images, G groups, H rows, W columns, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-5  # PyTorch's


class BatchNorm(nnx.Module):
  """Batch norm (Ioffe and Szegedy 2015) with f32 statistics; the running variance is unbiased as in PyTorch.

  `groups=None` is inference: normalises by the running statistics and leaves them as they are. `groups=G` is training:
  normalises each of the G groups by its own mean and variance, and moves the running statistics towards the mean over
  groups. `momentum` is the weight of the new value, as in PyTorch (0.1 there too).
  """

  def __init__(self, channels: int, *, momentum: float = 0.1, epsilon: float = EPSILON) -> None:
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))
    self.momentum, self.epsilon = momentum, epsilon

  def __call__(self, images_BHWC: jax.Array, *, groups: int | None = None) -> jax.Array:
    if groups is None:
      return self.normalise(images_BHWC, expand_rank(self.mean[...], 4), expand_rank(self.var[...], 4))
    # The running mean is read before its update below, so the images are shifted by a guess from earlier steps.
    mean_GC, var_GC = group_statistics(images_BHWC, groups, self.mean[...])
    self.update_running_statistics(mean_GC, var_GC, count=images_BHWC.size // (groups * images_BHWC.shape[-1]))
    images = len(images_BHWC)
    return self.normalise(images_BHWC, repeat_per_image(mean_GC, images), repeat_per_image(var_GC, images))

  def normalise(self, images: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    """(images - mean) / sqrt(var), scaled and shifted, in the dtype of the images."""
    # mean and var are f32, so bfloat16 images are promoted here and rounded once, at the end.
    factor = jax.lax.rsqrt(var + self.epsilon) * expand_rank(self.scale[...], images.ndim)
    return ((images - mean) * factor + expand_rank(self.bias[...], images.ndim)).astype(images.dtype)

  def update_running_statistics(self, mean_GC: jax.Array, var_GC: jax.Array, *, count: int) -> None:
    """Moves the running statistics towards the mean over groups. `count` values went into each group's mean."""
    # PyTorch normalises by the biased variance in training, but keeps the unbiased one for inference.
    unbiased = count / max(count - 1, 1)
    # Running statistics are state of the next step, not part of this step's loss.
    mean_C = jax.lax.stop_gradient(mean_GC.mean(0))
    var_C = jax.lax.stop_gradient(var_GC.mean(0)) * unbiased
    # Not `self.mean[...] = `: flax would ask for the tracer's sharding, which searches everything traced so far.
    self.mean.set_value((1 - self.momentum) * self.mean[...] + self.momentum * mean_C)
    self.var.set_value((1 - self.momentum) * self.var[...] + self.momentum * var_C)


def expand_rank(vector_C: jax.Array, rank: int) -> jax.Array:
  """(C,) -> (1, ..., 1, C): implicit rank promotion is an error in the tests."""
  return vector_C.reshape((1,) * (rank - 1) + (-1,))


def repeat_per_image(value_GC: jax.Array, images: int) -> jax.Array:
  """(G, C) -> (B, 1, 1, C): each image gets its group's value. Groups are neighbouring images."""
  return jnp.repeat(value_GC, images // len(value_GC), axis=0)[:, None, None]


def group_statistics(images_BHWC: jax.Array, groups: int, shift_C: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and biased variance of each group and channel in f32, (G, C) each, in one pass over the images.

  One pass means E[x^2] - E[x]^2, which loses its digits where the mean is large beside the standard deviation. So the
  images are first shifted by `shift_C`, a guess of the mean: here the running mean.
  """
  def average(images_BHWC: jax.Array) -> jax.Array:
    # Sum over pixels first, then cut into groups. Reshaping the images themselves would keep XLA from fusing this with
    # the convolution before it, which costs a fifth more memory traffic on a TPU.
    return images_BHWC.mean((1, 2)).reshape(groups, -1, images_BHWC.shape[-1]).mean(1)

  shifted = images_BHWC.astype(jnp.float32) - expand_rank(shift_C, 4)
  mean_GC = average(shifted)
  if shifted.shape[1:3] == (1, 1):
    # A pooled map is a few values, often far from zero: a second pass is exact and costs nothing.
    return shift_C[None] + mean_GC, average(jnp.square(shifted - repeat_per_image(mean_GC, len(shifted))))
  # Rounding can make the difference negative, and its inverse root would be NaN.
  return shift_C[None] + mean_GC, jnp.maximum(average(jnp.square(shifted)) - jnp.square(mean_GC), 0.0)
