"""A second trunk: DenseNet (Huang et al. 2017) as in torchvision, with one grey input channel. It is the network of
CheXNet and torchxrayvision.

Each layer of a block gets the maps of the block's input and of all layers before it, and adds `growth` channels. A
transition between two blocks halves the channels and the size of the map.

The four feature maps are what batch norm and ReLU after each block give. (The one after the last block is torchvision's
`norm5`; the others are the first half of a transition.) At output stride 16 or 8, the last transitions keep the size of
the map, and the blocks after them dilate their 3 x 3 convolutions instead (DenseASPP, Yang et al. 2018).

To add another DenseNet, add a line to LAYERS.

Letters: B images, H rows, W columns, C channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import Conv
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_average, pool_max

STEM = 64        # channels of the first convolution
BOTTLENECK = 4   # channels between the two convolutions of a layer, as a multiple of `growth`
he_fan_in = nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal')  # torchvision's choice for DenseNet

LAYERS: dict[str, tuple[int, tuple[int, ...]]] = {
  # name: (growth, number of layers in each of the four blocks)
  'densenet121': (32, (6, 12, 24, 16)),
}


class DenseLayer(nnx.Module):
  """A 1 x 1 and a 3 x 3 convolution, each after batch norm and ReLU: (B, H, W, C) -> (B, H, W, growth)."""

  def __init__(self, channels: int, growth: int, *, rngs: nnx.Rngs) -> None:
    self.norm1 = BatchNorm(channels)
    self.conv1 = Conv(channels, BOTTLENECK * growth, 1, rngs=rngs, init=he_fan_in)
    self.norm2 = BatchNorm(BOTTLENECK * growth)
    self.conv2 = Conv(BOTTLENECK * growth, growth, 3, rngs=rngs, init=he_fan_in)

  def __call__(self, images_BHWC: jax.Array, *, groups: int | None, dilation: int) -> jax.Array:
    hidden = self.conv1(jax.nn.relu(self.norm1(images_BHWC, groups=groups)))
    return self.conv2(jax.nn.relu(self.norm2(hidden, groups=groups)), dilation=dilation)


class DenseNet(nnx.Module):
  """Standardised images (B, H, W, 1) -> list of four feature maps, at strides 4, 8, 16 and 32.

  Args:
    name: a key of LAYERS.
    groups: number of batch-norm groups in the batch while training, None for inference.
    output_stride: 32, 16 or 8; no map gets a larger stride.

  `widths` are the channels of the four maps, `channels` those of the last (1,024 for DenseNet-121).
  """

  def __init__(self, name: str, *, rngs: nnx.Rngs) -> None:
    growth, depths = LAYERS[name]
    self.conv0 = Conv(1, STEM, 7, rngs=rngs, init=he_fan_in)
    self.norm0 = BatchNorm(STEM)
    channels, blocks, widths = STEM, [], []
    for depth in depths:
      blocks.append(nnx.List([DenseLayer(channels + index * growth, growth, rngs=rngs) for index in range(depth)]))
      widths.append(channels + depth * growth)
      channels = widths[-1] // 2
    self.blocks = nnx.List(blocks)
    self.norms = nnx.List([BatchNorm(width) for width in widths])
    self.transitions = nnx.List([Conv(width, width // 2, 1, rngs=rngs, init=he_fan_in) for width in widths[:-1]])
    self.widths = tuple(widths)
    self.channels = widths[-1]

  def __call__(self, images_BHW1: jax.Array, *, groups: int | None, output_stride: int = 32) -> list[jax.Array]:
    out = jax.nn.relu(self.norm0(self.conv0(images_BHW1, stride=2), groups=groups))
    out = pool_max(out)  # stride 4
    features: list[jax.Array] = []
    for index, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
      stride = 2 ** (index + 2)  # of the undilated trunk
      if index > 0:
        # The 1 x 1 convolution and the mean may change places. This order needs a quarter of the products.
        halved = pool_average(features[-1]) if stride <= output_stride else features[-1]
        out = self.transitions[index - 1](halved)
      maps = [out]
      for layer in block:
        maps.append(layer(jnp.concatenate(maps, axis=-1), groups=groups, dilation=max(stride // output_stride, 1)))
      features.append(jax.nn.relu(norm(jnp.concatenate(maps, axis=-1), groups=groups)))
    return features
