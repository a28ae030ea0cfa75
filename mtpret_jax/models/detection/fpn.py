"""Feature pyramid (Lin et al. 2017) as torchvision's, with the level that only max_skips pixels on top."""

import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import BiasedConv

uniform_fan_in = nnx.initializers.variance_scaling(1.0, 'fan_in', 'uniform')  # torchvision's kaiming_uniform_(a=1)


class FeaturePyramid(nnx.Module):
  """Maps of `widths` channels at strides 4, 8, 16, 32 -> maps of `width` channels at strides 4, 8, 16, 32, 64."""

  def __init__(self, widths, width, *, rngs):
    self.inner = nnx.List([BiasedConv(channels, width, 1, rngs=rngs, init=uniform_fan_in) for channels in widths])
    self.layer = nnx.List([BiasedConv(width, width, 3, rngs=rngs, init=uniform_fan_in) for _ in widths])

  def __call__(self, features):
    above, maps = None, []
    for features_BHWC, inner, layer in zip(features[::-1], self.inner[::-1], self.layer[::-1], strict=True):
      here = inner(features_BHWC)
      above = here if above is None else here + double(above, here.shape[1:3])
      maps.insert(0, layer(above))
    return [*maps, maps[-1][:, ::2, ::2]]


def double(map_BHWC, size):
  """Every pixel twice in each direction, cut to `size`: the nearest neighbour where `size` is double or one less."""
  for axis in (1, 2):
    map_BHWC = jnp.repeat(map_BHWC, 2, axis=axis)
  return map_BHWC[:, :size[0], :size[1]]
