"""Heads on the pooled trunk. Letters: B images, C trunk channels, D embedding dimensions."""

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.pool import pool_mean


def uniform_fan_in(key, shape, fan_in):
  """PyTorch's default for a linear layer: uniform within 1 / sqrt(fan_in)."""
  bound = fan_in ** -0.5
  return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class Linear(nnx.Module):
  """x @ kernel + bias in f32, initialised as PyTorch's `nn.Linear`."""

  def __init__(self, channels, out, *, rngs):
    self.kernel = nnx.Param(uniform_fan_in(rngs.params(), (channels, out), channels))
    self.bias = nnx.Param(uniform_fan_in(rngs.params(), (out,), channels))

  def __call__(self, features):
    return jnp.matmul(features, self.kernel[...], precision='highest') + self.bias[...][None]


class LinearHead(nnx.Module):
  """Pool, linear. List of feature maps -> (B, out) in f32."""

  def __init__(self, channels, out, *, rngs):
    self.out = Linear(channels, out, rngs=rngs)

  def __call__(self, features):
    return self.out(pool_mean(features[-1]))


class Projector(nnx.Module):
  """MoCo v2's head (Chen et al. 2020, `--mlp`): pool, linear, ReLU, linear to `dim`, scaled to unit length.

  List of feature maps -> (B, D), rows of length 1.
  """

  def __init__(self, channels, dim, *, rngs):
    self.hidden = Linear(channels, channels, rngs=rngs)
    self.out = Linear(channels, dim, rngs=rngs)

  def __call__(self, features):
    out_BD = self.out(jax.nn.relu(self.hidden(pool_mean(features[-1]))))
    return out_BD / jnp.maximum(jnp.linalg.norm(out_BD, axis=-1, keepdims=True), 1e-12)
