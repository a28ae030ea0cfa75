"""Convolution without bias, in the formulation that each backend runs fastest. The sums are the same everywhere.

Letters: B images, H rows, W columns, C input channels, D output channels.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.cpu import conv

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
  return compute(images_BHWC, drop_unused_taps(kernel_hwCD, images_BHWC.shape[1:3], dilation), stride, dilation)


def drop_unused_taps(kernel_hwCD, sides, dilation):
  """Taps so far apart that all but the middle one lie in the padding, whatever the pixel, cost nothing: a dilation
  of 36 on a map of 32 x 32 is a 1 x 1 convolution."""
  for axis, side in enumerate(sides):
    middle = kernel_hwCD.shape[axis] // 2
    if dilation >= side:
      kernel_hwCD = jax.lax.slice_in_dim(kernel_hwCD, middle, middle + 1, axis=axis)
  return kernel_hwCD


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def compute(images_BHWC, kernel_hwCD, stride, dilation):
  """The one place where the backend decides, forward and back."""
  return jax.lax.platform_dependent(
    images_BHWC, kernel_hwCD, cpu=lambda *both: conv.convolve_split(*both, stride, dilation),
    default=lambda *both: convolve_plainly(*both, stride, dilation))


def compute_with_memory(images_BHWC, kernel_hwCD, stride, dilation):
  return compute(images_BHWC, kernel_hwCD, stride, dilation), (images_BHWC, kernel_hwCD)


def pull_back(stride, dilation, memory, gradient_BhwD):
  return jax.lax.platform_dependent(
    *memory, gradient_BhwD, cpu=lambda *all: conv.pull_back_split(*all, stride, dilation),
    default=lambda *all: pull_back_plainly(*all, stride, dilation))


compute.defvjp(compute_with_memory, pull_back)


def convolve_plainly(images_BHWC, kernel_hwCD, stride, dilation):
  """As TPUs and GPUs want it. A 1 x 1 convolution is a matrix product over the pixels; not at stride 2,
  where XLA for GPUs fails on the slices that it takes into the product (jax 0.10.2, openxla/xla issue 47381)."""
  if kernel_hwCD.shape[:2] == (1, 1) and stride == 1:
    return images_BHWC @ kernel_hwCD[0, 0]
  return conv.convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def pull_back_plainly(images_BHWC, kernel_hwCD, gradient_BhwD, stride, dilation):
  _, pull = jax.vjp(lambda *both: convolve_plainly(*both, stride, dilation), images_BHWC, kernel_hwCD)
  return pull(gradient_BhwD)
