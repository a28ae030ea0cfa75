"""DeepLab-V3's head (Chen et al. 2017, "Rethinking atrous convolution") as torchvision's `deeplabv3_resnet50` has it.

It looks at the trunk's last map, best taken at output stride 8 (torchvision's) or 16, through taps at several
distances. Batch norm is over groups, as in the trunk, so nothing crosses devices.

Letters: B images, H W rows and columns of the image, h w those of the map, C channels, T kinds of pixel.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import BiasedConv, Conv
from mtpret_jax.models.norm import BatchNorm

DROPOUT = 0.5  # torchvision's, after the branches are joined


class ConvNorm(nnx.Module):
  """Convolution, batch norm, ReLU."""

  def __init__(self, channels, out, size, *, rngs):
    self.conv = Conv(channels, out, size, rngs=rngs)
    self.norm = BatchNorm(out)

  def __call__(self, images, *, groups, dilation=1):
    return jax.nn.relu(self.norm(self.conv(images, dilation=dilation), groups=groups))


class Pyramid(nnx.Module):
  """Atrous spatial pyramid: a point, 3 x 3 taps at each of `dilations` and the image's mean, joined to `width` channels."""

  def __init__(self, channels, width, dilations, *, rngs):
    self.point = ConvNorm(channels, width, 1, rngs=rngs)
    self.spread = nnx.List([ConvNorm(channels, width, 3, rngs=rngs) for _ in dilations])
    self.mean = ConvNorm(channels, width, 1, rngs=rngs)
    self.join = ConvNorm(width * (len(dilations) + 2), width, 1, rngs=rngs)
    self.dilations = tuple(dilations)

  def __call__(self, map_BhwC, *, groups):
    mean_B11C = map_BhwC.astype(jnp.float32).mean((1, 2), keepdims=True).astype(map_BhwC.dtype)
    mean_B11C = self.mean(mean_B11C, groups=groups)
    branches = [self.point(map_BhwC, groups=groups)]
    branches += [conv(map_BhwC, groups=groups, dilation=dilation)
                 for conv, dilation in zip(self.spread, self.dilations, strict=True)]
    branches.append(jnp.broadcast_to(mean_B11C, branches[0].shape))
    return self.join(jnp.concatenate(branches, axis=-1), groups=groups)


class DeepLab(nnx.Module):
  """Head for `box_classes` of pixel on a map of `channels`, `width` channels within (torchvision: 256). Its taps lie `dilations`
  pixels of the map apart (torchvision: 12, 24, 36 at output stride 8; the paper: half of that at 16).

  (list of feature maps, (H, W)) -> (B, H, W, T) logits in f32. `rng` draws the dropout of training; None for none.
  The mean branch is normalised over a group's images only, so a group needs two images or more while training.
  """

  def __init__(self, channels, kinds, *, width, dilations, rngs):
    self.pyramid = Pyramid(channels, width, dilations, rngs=rngs)
    self.conv = ConvNorm(width, width, 3, rngs=rngs)
    self.out = BiasedConv(width, kinds, 1, rngs=rngs)

  def __call__(self, features, size, *, groups, rng=None):
    seen_BhwC = self.pyramid(features[-1], groups=groups)
    if rng is not None:
      seen_BhwC = drop(seen_BhwC, rng)
    logits_BhwT = self.out(self.conv(seen_BhwC, groups=groups).astype(jnp.float32))
    return enlarge(logits_BhwT, size)


def drop(images, rng):
  """Dropout: DROPOUT of the values are zero, the others larger by as much."""
  keep = jax.random.bernoulli(rng, 1 - DROPOUT, images.shape)
  return jnp.where(keep, images / (1 - DROPOUT), 0)


def enlarge(map_BhwT, size):
  """Bilinear to `size` (H, W), corners not aligned, as PyTorch's `interpolate`; two matrix products."""
  batch, _, _, kinds = map_BhwT.shape
  return jax.image.resize(map_BhwT, (batch, *size, kinds), 'linear', antialias=False)
