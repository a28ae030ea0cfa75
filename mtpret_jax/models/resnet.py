"""The trunk: ResNet-18 and ResNet-50 (He et al. 2016) as torchvision builds them, with one grey channel in.

ResNet-50 has its stride on the 3 x 3 convolution ("v1.5"), as torchvision's weights expect. `weights.py` carries
weights over by name; a three-channel stem is summed over its channels, which is exact for grey images.

Letters: B images, H rows, W columns, C channels.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.models.conv import Conv
from mtpret_jax.models.norm import BatchNorm

WIDTHS = (64, 128, 256, 512)


class BasicBlock(nnx.Module):
  """Two 3 x 3 convolutions and a shortcut (ResNet-18)."""

  expansion = 1

  def __init__(self, channels, width, *, stride, rngs):
    self.conv1 = Conv(channels, width, 3, stride=stride, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.shortcut = make_shortcut(channels, width, stride=stride, rngs=rngs)

  def __call__(self, images, *, groups):
    out = jax.nn.relu(self.norm1(self.conv1(images), groups=groups))
    out = self.norm2(self.conv2(out), groups=groups)
    return jax.nn.relu(out + (images if self.shortcut is None else self.shortcut(images, groups=groups)))


class Bottleneck(nnx.Module):
  """1 x 1, 3 x 3 and 1 x 1 convolutions, the last four times as wide, and a shortcut (ResNet-50)."""

  expansion = 4

  def __init__(self, channels, width, *, stride, rngs):
    out = width * self.expansion
    self.conv1 = Conv(channels, width, 1, rngs=rngs)
    self.norm1 = BatchNorm(width)
    self.conv2 = Conv(width, width, 3, stride=stride, rngs=rngs)
    self.norm2 = BatchNorm(width)
    self.conv3 = Conv(width, out, 1, rngs=rngs)
    self.norm3 = BatchNorm(out)
    self.shortcut = make_shortcut(channels, out, stride=stride, rngs=rngs)

  def __call__(self, images, *, groups):
    out = jax.nn.relu(self.norm1(self.conv1(images), groups=groups))
    out = jax.nn.relu(self.norm2(self.conv2(out), groups=groups))
    out = self.norm3(self.conv3(out), groups=groups)
    return jax.nn.relu(out + (images if self.shortcut is None else self.shortcut(images, groups=groups)))


class Shortcut(nnx.Module):
  """The 1 x 1 projection where a block changes width or resolution."""

  def __init__(self, channels, out, *, stride, rngs):
    self.conv = Conv(channels, out, 1, stride=stride, rngs=rngs)
    self.norm = BatchNorm(out)

  def __call__(self, images, *, groups):
    return self.norm(self.conv(images), groups=groups)


def make_shortcut(channels, out, *, stride, rngs):
  changes = stride != 1 or channels != out
  return Shortcut(channels, out, stride=stride, rngs=rngs) if changes else None


LAYERS = {'resnet18': (BasicBlock, (2, 2, 2, 2)), 'resnet50': (Bottleneck, (3, 4, 6, 3))}


class ResNet(nnx.Module):
  """`name` is 'resnet18' or 'resnet50'. (B, H, W, 1) standardised images -> feature maps at strides 4, 8, 16, 32.

  `groups`: the number of batch-norm groups in the batch while training, None for inference. `channels` is the number
  of features of the last map: 512 or 2,048.
  """

  def __init__(self, name, *, rngs):
    block, depths = LAYERS[name]
    self.conv1 = Conv(1, 64, 7, stride=2, rngs=rngs)
    self.norm1 = BatchNorm(64)
    channels, stages = 64, []
    for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
      blocks = []
      for index in range(depth):
        blocks.append(block(channels, width, stride=2 if stage and not index else 1, rngs=rngs))
        channels = width * block.expansion
      stages.append(nnx.List(blocks))
    self.stages = nnx.List(stages)
    self.channels = channels

  def __call__(self, images_BHW1, *, groups):
    out = jax.nn.relu(self.norm1(self.conv1(images_BHW1), groups=groups))
    out, features = pool_max(out), []
    for blocks in self.stages:
      for block in blocks:
        out = block(out, groups=groups)
      features.append(out)
    return features


def pool_max(images_BHWC):
  """3 x 3 maximum at stride 2, padded by one, of images that are nowhere negative (after ReLU).

  As maxima of shifted slices, rows first: the gradient of `reduce_window` is a scatter, slow on every backend.
  """
  def pool_rows(images):
    height = images.shape[1]
    out = -(-height // 2)
    padded = jnp.pad(images, ((0, 0), (1, 1), (0, 0), (0, 0)))  # zero never exceeds what ReLU leaves
    return functools.reduce(jnp.maximum, [padded[:, i:i + 2 * out - 1:2] for i in range(3)])
  return pool_rows(pool_rows(images_BHWC).swapaxes(1, 2)).swapaxes(1, 2)


def pool_mean(features_BHWC):
  """The mean over the image in f32: (B, C)."""
  return features_BHWC.astype(jnp.float32).mean((1, 2))
