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
  """`size` x `size` convolution, no bias, zero padding so that stride 1 keeps the size, as torchvision pads.

  (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), D), computed in the dtype of the input. `dilation` is the
  distance of the kernel's taps in pixels. Neither is part of the weights: both are said at the call.
  """

  def __init__(self, channels, out, size, *, rngs, init=he_normal):
    self.kernel = nnx.Param(init(rngs.params(), (size, size, channels, out), jnp.float32))

  def __call__(self, images_BHWC, *, stride=1, dilation=1):
    return convolve(images_BHWC, self.kernel[...].astype(images_BHWC.dtype), stride, dilation)


class BiasedConv(Conv):
  """The same and a bias, which starts at zero."""

  def __init__(self, channels, out, size, *, rngs, init=he_normal):
    super().__init__(channels, out, size, rngs=rngs, init=init)
    self.bias = nnx.Param(jnp.zeros(out))

  def __call__(self, images_BHWC):
    return super().__call__(images_BHWC) + self.bias[...].astype(images_BHWC.dtype)[None, None, None]


def convolve(images_BHWC, kernel_hwCD, stride, dilation=1):
  """The convolution of odd, square `kernel_hwCD` with `images_BHWC`, padded by half of what the kernel spans."""
  kernel_hwCD = drop_unused_taps(kernel_hwCD, images_BHWC.shape[1:3], dilation)
  if kernel_hwCD.shape[:2] == (1, 1):
    return convolve_points(images_BHWC, kernel_hwCD, stride)
  height, channels = images_BHWC.shape[1], images_BHWC.shape[-1]
  if channels == 1 or -(-height // stride) <= PATCHES_UP_TO:
    return jax.lax.platform_dependent(
      images_BHWC, kernel_hwCD,
      cpu=lambda images, kernel: convolve_patches(images, kernel, stride, dilation),
      default=lambda images, kernel: convolve_directly(images, kernel, stride, dilation))
  return convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def drop_unused_taps(kernel_hwCD, sides, dilation):
  """Taps so far apart that all but the middle one lie in the padding, whatever the pixel, cost nothing: a dilation
  of 36 on a map of 32 x 32 is a 1 x 1 convolution."""
  for axis, side in enumerate(sides):
    middle = kernel_hwCD.shape[axis] // 2
    if dilation >= side:
      kernel_hwCD = jax.lax.slice_in_dim(kernel_hwCD, middle, middle + 1, axis=axis)
  return kernel_hwCD


def find_padding(kernel_hwCD, dilation):
  return [dilation * (size // 2) for size in kernel_hwCD.shape[:2]]


def convolve_directly(images_BHWC, kernel_hwCD, stride, dilation):
  return jax.lax.conv_general_dilated(
    images_BHWC, kernel_hwCD, (stride, stride), [(pad, pad) for pad in find_padding(kernel_hwCD, dilation)],
    rhs_dilation=(dilation, dilation), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def convolve_points(images_BHWC, kernel_11CD, stride):
  """A 1 x 1 convolution is a matrix product over the kept pixels."""
  return images_BHWC[:, ::stride, ::stride] @ kernel_11CD[0, 0]


def convolve_patches(images_BHWC, kernel_hwCD, stride, dilation):
  """Every window as one row (h w C long) of a matrix, times the kernel as a matrix."""
  rows, columns, channels, out = kernel_hwCD.shape
  up, left = find_padding(kernel_hwCD, dilation)
  height, width = (-(-side // stride) for side in images_BHWC.shape[1:3])
  padded = jnp.pad(images_BHWC, ((0, 0), (up, up), (left, left), (0, 0)))
  shifted = [padded[:, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
             for i in range(0, rows * dilation, dilation) for j in range(0, columns * dilation, dilation)]
  return jnp.concatenate(shifted, axis=-1) @ kernel_hwCD.reshape(rows * columns * channels, out)
