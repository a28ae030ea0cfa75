"""Feature pyramid network (Lin et al. 2017) as in torchvision, with `LastLevelMaxPool` as its fifth level."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import BiasedConv

lecun_uniform = nnx.initializers.lecun_uniform()  # torchvision's kaiming_uniform_(a=1)


class FeaturePyramid(nnx.Module):
  """Maps of `widths` channels at strides 4, 8, 16, 32 -> maps of `width` channels at strides 4, 8, 16, 32, 64."""

  def __init__(self, widths: Sequence[int], width: int, *, rngs: nnx.Rngs) -> None:
    self.inner_blocks = nnx.List([BiasedConv(channels, width, 1, rngs=rngs, init=lecun_uniform)
                                  for channels in widths])
    self.layer_blocks = nnx.List([BiasedConv(width, width, 3, rngs=rngs, init=lecun_uniform) for _ in widths])

  def __call__(self, features: Sequence[jax.Array]) -> list[jax.Array]:
    top_down: jax.Array | None = None
    maps: list[jax.Array] = []
    for features_BHWC, inner, layer in zip(features[::-1], self.inner_blocks[::-1], self.layer_blocks[::-1],
                                           strict=True):
      lateral = inner(features_BHWC)
      top_down = lateral if top_down is None else lateral + upsample(top_down, lateral.shape[1:3])
      maps.insert(0, layer(top_down))
    # A 1 x 1 max pool at stride 2, which is a slice.
    return [*maps, maps[-1][:, ::2, ::2]]


def upsample(map_BHWC: jax.Array, size: Sequence[int]) -> jax.Array:
  """Nearest neighbour by a factor of two, as in torchvision. `size` is that of the finer map: twice the size of the
  map; one less where a ResNet has halved an odd size, one more where a DenseNet has."""
  for axis in (1, 2):
    map_BHWC = jnp.repeat(map_BHWC, 2, axis=axis)
    if map_BHWC.shape[axis] < size[axis - 1]:
      map_BHWC = jnp.concatenate([jax.lax.slice_in_dim(map_BHWC, 0, 1, axis=axis), map_BHWC], axis)
  return map_BHWC[:, :size[0], :size[1]]
