"""Convolution without bias, in the formulation that each backend runs fastest. The sums are the same everywhere.

Letters: B images, H rows, W columns, C input channels, D output channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

# Where the result is 2 x 2, XLA's CPU convolution and its gradients run at 3 GFLOP/s and a matrix product over patches
# at 150 or more; where it is larger it is the other way round. One input channel is slow at any size.
PATCHES_UP_TO = 2

he_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # torchvision's, He et al. 2015


class Conv(nnx.Module):
  """`size` x `size` convolution, zero padding size // 2 on each side as in torchvision, no bias.

  (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), D), computed in the dtype of the input.
  """

  def __init__(self, channels, out, size, *, stride=1, rngs):
    self.kernel = nnx.Param(he_normal(rngs.params(), (size, size, channels, out), jnp.float32))
    self.stride = stride

  def __call__(self, images_BHWC):
    return convolve(images_BHWC, self.kernel[...].astype(images_BHWC.dtype), self.stride)


def convolve(images_BHWC, kernel_hwCD, stride):
  """The convolution of odd `kernel_hwCD` with `images_BHWC`, padded by half the kernel."""
  if kernel_hwCD.shape[0] == 1:
    return convolve_points(images_BHWC, kernel_hwCD, stride)
  height, channels = images_BHWC.shape[1], images_BHWC.shape[-1]
  if channels == 1 or -(-height // stride) <= PATCHES_UP_TO:
    return jax.lax.platform_dependent(
      images_BHWC, kernel_hwCD,
      cpu=lambda images, kernel: convolve_patches(images, kernel, stride),
      default=lambda images, kernel: convolve_directly(images, kernel, stride))
  return convolve_directly(images_BHWC, kernel_hwCD, stride)


def convolve_directly(images_BHWC, kernel_hwCD, stride):
  pad = kernel_hwCD.shape[0] // 2
  return jax.lax.conv_general_dilated(
    images_BHWC, kernel_hwCD, (stride, stride), [(pad, pad)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def convolve_points(images_BHWC, kernel_11CD, stride):
  """A 1 x 1 convolution is a matrix product over the kept pixels."""
  return images_BHWC[:, ::stride, ::stride] @ kernel_11CD[0, 0]


def convolve_patches(images_BHWC, kernel_hwCD, stride):
  """Every window as one row (h w C long) of a matrix, times the kernel as a matrix."""
  size, _, channels, out = kernel_hwCD.shape
  pad = size // 2
  height, width = (-(-side // stride) for side in images_BHWC.shape[1:3])
  padded = jnp.pad(images_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  shifted = [padded[:, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
             for i in range(size) for j in range(size)]
  return jnp.concatenate(shifted, axis=-1) @ kernel_hwCD.reshape(size * size * channels, out)
