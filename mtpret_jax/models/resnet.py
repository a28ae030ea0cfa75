"""The trunk: ResNet-18 and ResNet-50 (He et al. 2016) as torchvision builds them, with one grey channel in.

ResNet-50 has its stride on the 3 x 3 convolution ("v1.5"), as torchvision's weights expect. `weights.py` carries
weights over by name; a three-channel stem is summed over its channels, which is exact for grey images.

The same weights serve at output stride 32 (classification) and, for dense prediction, at 16 or 8: the stages that
would go on halving the map keep its size and spread their taps instead (dilation, torchvision's
`replace_stride_with_dilation`). Every second pixel of such a map is then what the strided stage gives. torchvision
does this for ResNet-50 only; in ResNet-18 the same rule spreads both 3 x 3 convolutions of a block.

Letters: B images, H rows, W columns, C channels.
"""

import dataclasses

import jax
from flax import nnx

from mtpret_jax.models.conv import Conv
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_max

WIDTHS = (64, 128, 256, 512)


class BasicBlock(nnx.Module):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18)."""

  expansion = 1

  def __init__(self, channels, width, *, rngs):
    self.conv1 = Conv(channels, width, 3, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.shortcut = make_shortcut(channels, width, rngs=rngs)

  def __call__(self, images, *, groups, grid):
    out = jax.nn.relu(self.norm1(self.conv1(images, stride=grid.stride, dilation=grid.before), groups=groups))
    out = self.norm2(self.conv2(out, dilation=grid.after), groups=groups)
    return jax.nn.relu(out + pass_by(self.shortcut, images, groups=groups, grid=grid))


class Bottleneck(nnx.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions, the last four times as wide, and a shortcut (ResNet-50)."""

  expansion = 4

  def __init__(self, channels, width, *, rngs):
    out = width * self.expansion
    self.conv1 = Conv(channels, width, 1, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.conv3 = Conv(width, out, 1, rngs=rngs)
    self.norm3 = BatchNorm(out)
    self.shortcut = make_shortcut(channels, out, rngs=rngs)

  def __call__(self, images, *, groups, grid):
    out = jax.nn.relu(self.norm1(self.conv1(images), groups=groups))
    out = jax.nn.relu(self.norm2(self.conv2(out, stride=grid.stride, dilation=grid.before), groups=groups))
    out = self.norm3(self.conv3(out), groups=groups)
    return jax.nn.relu(out + pass_by(self.shortcut, images, groups=groups, grid=grid))


class Shortcut(nnx.Module):
  """The 1 x 1 projection where a block changes width. All that halve the resolution do."""

  def __init__(self, channels, out, *, rngs):
    self.conv = Conv(channels, out, 1, rngs=rngs)
    self.norm = BatchNorm(out)

  def __call__(self, images, *, groups, grid):
    return self.norm(self.conv(images, stride=grid.stride), groups=groups)


def make_shortcut(channels, out, *, rngs):
  return Shortcut(channels, out, rngs=rngs) if channels != out else None


def pass_by(shortcut, images, *, groups, grid):
  return images if shortcut is None else shortcut(images, groups=groups, grid=grid)


@dataclasses.dataclass(frozen=True)
class Grid:
  """How a block walks over its map: by `stride`, its taps `before` pixels apart up to there and `after` from there."""

  stride: int
  before: int
  after: int


def plan_block(stage, index, output_stride):
  """The grid of block `index` of `stage`. The first block halves the map (not in stage 0), unless that would exceed
  `output_stride`: then it doubles the distance of the taps."""
  stride_in, stride_out = 2 ** max(stage + 1, 2), 2 ** (stage + 2)  # of the undilated trunk
  before, after = (max(stride // output_stride, 1) for stride in (stride_in, stride_out))
  stride = 1 if after > before else stride_out // stride_in
  return Grid(1, after, after) if index else Grid(stride, before, after)


LAYERS = {  # name: (block, number of blocks in each of the four stages)
  'resnet18': (BasicBlock, (2, 2, 2, 2)),
  'resnet34': (BasicBlock, (3, 4, 6, 3)),
  'resnet50': (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nnx.Module):
  """`name` is 'resnet18' or 'resnet50'. (B, H, W, 1) standardised images -> feature maps at strides 4, 8, 16, 32.

  `groups`: the number of batch-norm groups in the batch while training, None for inference. `output_stride`: 32, or
  16 or 8, which no map's stride then exceeds. `widths` are the channels of the four maps, `channels` those of the
  last: 512 or 2,048.
  """

  def __init__(self, name, *, rngs):
    block, depths = LAYERS[name]
    self.conv1 = Conv(1, 64, 7, rngs=rngs)
    self.norm1 = BatchNorm(64)
    channels, stages = 64, []
    for width, depth in zip(WIDTHS, depths, strict=True):
      blocks = []
      for _ in range(depth):
        blocks.append(block(channels, width, rngs=rngs))
        channels = width * block.expansion
      stages.append(nnx.List(blocks))
    self.stages = nnx.List(stages)
    self.channels = channels
    self.widths = tuple(width * block.expansion for width in WIDTHS)

  def __call__(self, images_BHW1, *, groups, output_stride=32):
    out = jax.nn.relu(self.norm1(self.conv1(images_BHW1, stride=2), groups=groups))
    out, features = pool_max(out), []
    for stage, blocks in enumerate(self.stages):
      for index, block in enumerate(blocks):
        out = block(out, groups=groups, grid=plan_block(stage, index, output_stride))
      features.append(out)
    return features
