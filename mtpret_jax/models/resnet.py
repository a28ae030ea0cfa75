"""The trunk: ResNet (He et al. 2016) as in torchvision, with one grey input channel.

ResNet-50 has its stride on the 3 x 3 convolution ("v1.5"), as torchvision's weights expect. `torchvision_weights.py`
imports and exports weights; a three-channel stem is summed over its channels, which is exact for grey images.

The same weights serve at output stride 32 for classification and at 16 or 8 for dense prediction. There, the last
stages keep the size of the map and dilate their convolutions instead (torchvision's `replace_stride_with_dilation`).
Every second pixel of such a map equals the map of the strided stage. torchvision dilates ResNet-50 only; for
`BasicBlock`, the same rule dilates both 3 x 3 convolutions.

To add another ResNet, add a line to LAYERS. To test it, add its name to `tests/reference/resnet_torch.py`, record the
fixture with `python -m tests.reference.resnet_torch`, and add the name to `tests/models/test_resnet.py`.

Letters: B images, H rows, W columns, C channels.
"""

import dataclasses

import jax
from flax import nnx

from mtpret_jax.models.conv import Conv
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_max

WIDTHS = (64, 128, 256, 512)  # of the four stages, before a block's expansion


@dataclasses.dataclass(frozen=True)
class BlockShape:
  """How a block samples its map: the stride and dilation of its first 3 x 3 convolution and the dilation after it."""

  stride: int
  dilation: int
  next_dilation: int


def shape_block(stage: int, index: int, output_stride: int) -> BlockShape:
  """The shape of block `index` of `stage`.

  The first block of stages 1 to 3 (counted from 0) halves the map. Where the stride would then exceed `output_stride`,
  the block doubles the dilation instead.
  """
  stride_in, stride_out = 2 ** max(stage + 1, 2), 2 ** (stage + 2)  # of the undilated trunk
  dilation_in, dilation_out = (max(stride // output_stride, 1) for stride in (stride_in, stride_out))
  if index > 0:
    return BlockShape(1, dilation_out, dilation_out)
  stride = 1 if dilation_out > dilation_in else stride_out // stride_in
  return BlockShape(stride, dilation_in, dilation_out)


class BasicBlock(nnx.Module):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18 and -34)."""

  expansion = 1

  def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs) -> None:
    self.conv1 = Conv(channels, width, 3, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.shortcut = make_shortcut(channels, width, rngs=rngs)

  def __call__(self, images: jax.Array, *, groups: int | None, shape: BlockShape) -> jax.Array:
    out = self.conv1(images, stride=shape.stride, dilation=shape.dilation)
    out = jax.nn.relu(self.norm1(out, groups=groups))
    out = self.norm2(self.conv2(out, dilation=shape.next_dilation), groups=groups)
    return jax.nn.relu(out + apply_shortcut(self.shortcut, images, groups=groups, shape=shape))


class Bottleneck(nnx.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions, the last four times as wide, and a shortcut (ResNet-50)."""

  expansion = 4

  def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs) -> None:
    out = width * self.expansion
    self.conv1 = Conv(channels, width, 1, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.conv3 = Conv(width, out, 1, rngs=rngs)
    self.norm3 = BatchNorm(out)
    self.shortcut = make_shortcut(channels, out, rngs=rngs)

  def __call__(self, images: jax.Array, *, groups: int | None, shape: BlockShape) -> jax.Array:
    out = jax.nn.relu(self.norm1(self.conv1(images), groups=groups))
    out = self.conv2(out, stride=shape.stride, dilation=shape.dilation)
    out = jax.nn.relu(self.norm2(out, groups=groups))
    # No ReLU before the sum, so that a block can subtract from its shortcut.
    out = self.norm3(self.conv3(out), groups=groups)
    return jax.nn.relu(out + apply_shortcut(self.shortcut, images, groups=groups, shape=shape))


class Shortcut(nnx.Module):
  """1 x 1 projection of the shortcut where a block changes the number of channels.

  Every block that halves the map also changes the channels, so an identity shortcut never needs a stride.
  """

  def __init__(self, channels: int, out: int, *, rngs: nnx.Rngs) -> None:
    self.conv = Conv(channels, out, 1, rngs=rngs)
    self.norm = BatchNorm(out)

  def __call__(self, images: jax.Array, *, groups: int | None, stride: int) -> jax.Array:
    return self.norm(self.conv(images, stride=stride), groups=groups)


def make_shortcut(channels: int, out: int, *, rngs: nnx.Rngs) -> Shortcut | None:
  """None is the identity."""
  return Shortcut(channels, out, rngs=rngs) if channels != out else None


def apply_shortcut(shortcut: Shortcut | None, images: jax.Array, *, groups: int | None,
                   shape: BlockShape) -> jax.Array:
  return images if shortcut is None else shortcut(images, groups=groups, stride=shape.stride)


LAYERS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
  # name: (block, number of blocks in each of the four stages)
  'resnet18': (BasicBlock, (2, 2, 2, 2)),
  'resnet34': (BasicBlock, (3, 4, 6, 3)),
  'resnet50': (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nnx.Module):
  """Standardised images (B, H, W, 1) -> list of four feature maps, at strides 4, 8, 16 and 32.

  Args:
    name: a key of LAYERS.
    groups: number of batch-norm groups in the batch while training, None for inference.
    output_stride: 32, 16 or 8; no map gets a larger stride.

  `widths` are the channels of the four maps, `channels` those of the last (512, or 2,048 for ResNet-50).
  """

  def __init__(self, name: str, *, rngs: nnx.Rngs) -> None:
    block, depths = LAYERS[name]
    self.conv1 = Conv(1, 64, 7, rngs=rngs)
    self.norm1 = BatchNorm(64)
    channels, stages = 64, []  # `channels` is the number of channels that the next block gets
    for width, depth in zip(WIDTHS, depths, strict=True):
      blocks = []
      for _ in range(depth):
        blocks.append(block(channels, width, rngs=rngs))
        channels = width * block.expansion
      stages.append(nnx.List(blocks))
    self.stages = nnx.List(stages)
    self.channels = channels
    self.widths = tuple(width * block.expansion for width in WIDTHS)

  def __call__(self, images_BHW1: jax.Array, *, groups: int | None, output_stride: int = 32) -> list[jax.Array]:
    out = jax.nn.relu(self.norm1(self.conv1(images_BHW1, stride=2), groups=groups))
    out, features = pool_max(out), []  # stride 4
    for stage, blocks in enumerate(self.stages):
      for index, block in enumerate(blocks):
        out = block(out, groups=groups, shape=shape_block(stage, index, output_stride))
      features.append(out)
    return features
