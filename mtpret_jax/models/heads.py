"""Heads on the pooled last map of the trunk. Letters: B images, C trunk channels, D embedding dimensions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.pool import pool_mean


def uniform_fan_in(rng: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
  """PyTorch's default for a linear layer: uniform within 1 / sqrt(fan_in)."""
  bound = fan_in ** -0.5
  return jax.random.uniform(rng, shape, jnp.float32, -bound, bound)


class Linear(nnx.Module):
  """x @ kernel + bias in f32, initialised as PyTorch's `nn.Linear`."""

  def __init__(self, channels: int, out: int, *, rngs: nnx.Rngs) -> None:
    self.kernel = nnx.Param(uniform_fan_in(rngs.params(), (channels, out), channels))
    self.bias = nnx.Param(uniform_fan_in(rngs.params(), (out,), channels))

  def __call__(self, features: jax.Array) -> jax.Array:
    # TPUs multiply f32 in bf16 by default; 'highest' keeps f32. A linear layer is too small for this to cost time.
    return jnp.matmul(features, self.kernel[...], precision='highest') + self.bias[...][None]


class LinearHead(nnx.Module):
  """Mean pool, linear. List of feature maps -> (B, out) in f32."""

  def __init__(self, channels: int, out: int, *, rngs: nnx.Rngs) -> None:
    self.out = Linear(channels, out, rngs=rngs)

  def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
    return self.out(pool_mean(features[-1]))

  def map_activation(self, features: Sequence[jax.Array]) -> jax.Array:
    """(B, h, w, out) in f32: how much each place of the last feature map adds to each output. The mean over places plus
    the bias is the output. Class activation mapping (Zhou et al. 2016); its positive part is Grad-CAM (Selvaraju et al.
    2017) for this head, up to a factor."""
    return jnp.matmul(features[-1].astype(jnp.float32), self.out.kernel[...], precision='highest')


class Projector(nnx.Module):
  """MoCo v2's head (Chen et al. 2020, `--mlp`): mean pool, linear, ReLU, linear to `dim`, scaled to unit length.

  List of feature maps -> (B, D), rows of length 1.
  """

  def __init__(self, channels: int, dim: int, *, rngs: nnx.Rngs) -> None:
    self.hidden = Linear(channels, channels, rngs=rngs)
    self.out = Linear(channels, dim, rngs=rngs)

  def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
    out_BD = self.out(jax.nn.relu(self.hidden(pool_mean(features[-1]))))
    # Unit length: dot products are cosines. The bound keeps the gradient finite for a zero vector.
    return out_BD / jnp.maximum(jnp.linalg.norm(out_BD, axis=-1, keepdims=True), 1e-12)
