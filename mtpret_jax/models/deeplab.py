"""DeepLab-V3 (Chen et al. 2017, "Rethinking atrous convolution"): the head of torchvision's `deeplabv3_resnet50`.

It reads the trunk's last map at output stride 8 (torchvision's choice) or 16. Batch norm is over groups, as in the
trunk, so it needs no communication between devices.

Letters: B images, H W rows and columns of the image, h w those of the map, C channels, T classes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import BiasedConv, Conv
from mtpret_jax.models.norm import BatchNorm

DROPOUT = 0.5  # torchvision's, after the branches of ASPP are joined


class ConvNorm(nnx.Module):
  """Convolution, batch norm, ReLU."""

  def __init__(self, channels: int, out: int, size: int, *, rngs: nnx.Rngs) -> None:
    self.conv = Conv(channels, out, size, rngs=rngs)
    self.norm = BatchNorm(out)

  def __call__(self, images: jax.Array, *, groups: int | None, dilation: int = 1) -> jax.Array:
    return jax.nn.relu(self.norm(self.conv(images, dilation=dilation), groups=groups))


class ASPP(nnx.Module):
  """Atrous spatial pyramid pooling: a 1 x 1 convolution, a 3 x 3 convolution at each of `dilations`, and image pooling.

  The branches are joined and projected to `width` channels.
  """

  def __init__(self, channels: int, width: int, dilations: Sequence[int], *, rngs: nnx.Rngs) -> None:
    self.pointwise = ConvNorm(channels, width, 1, rngs=rngs)
    self.atrous = nnx.List([ConvNorm(channels, width, 3, rngs=rngs) for _ in dilations])
    self.pooling = ConvNorm(channels, width, 1, rngs=rngs)
    self.project = ConvNorm(width * (len(dilations) + 2), width, 1, rngs=rngs)
    self.dilations = tuple(dilations)

  def __call__(self, map_BhwC: jax.Array, *, groups: int | None) -> jax.Array:
    # The mean is taken in f32: a sum over thousands of bfloat16 values would lose most of them.
    pooled_B11C = map_BhwC.astype(jnp.float32).mean((1, 2), keepdims=True).astype(map_BhwC.dtype)
    pooled_B11C = self.pooling(pooled_B11C, groups=groups)
    branches = [self.pointwise(map_BhwC, groups=groups)]
    branches += [conv(map_BhwC, groups=groups, dilation=dilation)
                 for conv, dilation in zip(self.atrous, self.dilations, strict=True)]
    branches.append(jnp.broadcast_to(pooled_B11C, branches[0].shape))
    return self.project(jnp.concatenate(branches, axis=-1), groups=groups)


class DeepLab(nnx.Module):
  """Segmentation head: list of feature maps, image size -> logits (B, H, W, T) in f32.

  Args:
    channels: of the trunk's last map.
    classes: T.
    width: channels inside the head; torchvision has 256.
    dilations: of ASPP's 3 x 3 convolutions, px of the map. (12, 24, 36) at output stride 8, half of that at 16.

  `groups` is the number of batch-norm groups, None for inference. While training, a group needs two images or more,
  because image pooling leaves one value per image to normalise. `rng` is the key for dropout, None for inference.
  """

  def __init__(self, channels: int, classes: int, *, width: int, dilations: Sequence[int], rngs: nnx.Rngs) -> None:
    self.aspp = ASPP(channels, width, dilations, rngs=rngs)
    self.conv = ConvNorm(width, width, 3, rngs=rngs)
    self.logits = BiasedConv(width, classes, 1, rngs=rngs)

  def __call__(self, features: Sequence[jax.Array], size: tuple[int, int], *, groups: int | None,
               rng: jax.Array | None = None) -> jax.Array:
    hidden_BhwC = self.aspp(features[-1], groups=groups)
    if rng is not None:
      hidden_BhwC = dropout(hidden_BhwC, rng)
    logits_BhwT = self.logits(self.conv(hidden_BhwC, groups=groups).astype(jnp.float32))
    return upsample(logits_BhwT, size)


def dropout(images: jax.Array, rng: jax.Array) -> jax.Array:
  """Sets a share DROPOUT of the values to zero and scales up the others, so that the mean is preserved."""
  keep = jax.random.bernoulli(rng, 1 - DROPOUT, images.shape)
  return jnp.where(keep, images / (1 - DROPOUT), 0)


def upsample(map_BhwT: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Bilinear to `size` (H, W), as PyTorch's `interpolate(align_corners=False)`. XLA makes it two matrix products."""
  batch, _, _, classes = map_BhwT.shape
  return jax.image.resize(map_BhwT, (batch, *size, classes), 'linear', antialias=False)
