"""Convolution without bias.

The plain implementation here runs on TPUs and GPUs. On CPUs, `mtpret_jax.cpu` replaces it with faster ones, whose
result differs by rounding only.

Letters: B images, H rows, W columns, C input channels, D output channels; h w rows and columns of the kernel, or of the
output.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtpret_jax.runtime import backend

he_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # torchvision's choice (He et al. 2015)


class Conv(nnx.Module):
  """`size` x `size` convolution without bias, `size` odd. Padded with zeros as in torchvision, so that stride 1 keeps
  the size of the map.

  (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), D), in the dtype of the input. `dilation` is the distance
  between the taps of the kernel in pixels. Stride and dilation are arguments of the call, so that one set of weights
  serves at several output strides.
  """

  def __init__(self, channels: int, out: int, size: int, *, rngs: nnx.Rngs, init: Callable = he_normal):
    self.kernel = nnx.Param(init(rngs.params(), (size, size, channels, out), jnp.float32))

  def __call__(self, images_BHWC: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    return convolve(images_BHWC, self.kernel[...].astype(images_BHWC.dtype), stride, dilation)


class BiasedConv(Conv):
  """Convolution at stride 1 with a bias, which starts at zero."""

  def __init__(self, channels: int, out: int, size: int, *, rngs: nnx.Rngs, init: Callable = he_normal):
    super().__init__(channels, out, size, rngs=rngs, init=init)
    self.bias = nnx.Param(jnp.zeros(out))

  def __call__(self, images_BHWC: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    out_BhwD = super().__call__(images_BHWC, stride=stride, dilation=dilation)
    return out_BhwD + self.bias[...].astype(images_BHWC.dtype)[None, None, None]


def convolve(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int = 1) -> jax.Array:
  """The convolution, padded on each side by half of what the dilated kernel spans: (B, ceil(H / stride),
  ceil(W / stride), D). `kernel_hwCD` has odd sides."""
  return compute(images_BHWC, drop_unused_taps(kernel_hwCD, images_BHWC.shape[1:3], dilation), stride, dilation)


def drop_unused_taps(kernel_hwCD: jax.Array, sides: tuple[int, ...], dilation: int) -> jax.Array:
  """Along an axis on which all other taps fall into the padding for every pixel, keeps only the middle tap. DeepLab's
  dilation of 36 on a map of 32 x 32 is then a 1 x 1 convolution, and costs a ninth."""
  for axis, side in enumerate(sides):
    middle = kernel_hwCD.shape[axis] // 2
    if dilation >= side:
      kernel_hwCD = jax.lax.slice_in_dim(kernel_hwCD, middle, middle + 1, axis=axis)
  return kernel_hwCD


# By default, jax derives the gradients from the forward pass. A custom rule is needed because the fastest gradients on
# CPUs have implementations of their own.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def compute(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  return run_on_backend('convolve', convolve_plainly, stride, dilation, images_BHWC, kernel_hwCD)


def compute_forward(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> tuple:
  return compute(images_BHWC, kernel_hwCD, stride, dilation), (images_BHWC, kernel_hwCD)


def compute_backward(stride: int, dilation: int, saved: tuple, gradient_BhwD: jax.Array) -> tuple:
  return run_on_backend('convolution_gradients', gradients_plainly, stride, dilation, *saved, gradient_BhwD)


compute.defvjp(compute_forward, compute_backward)


def run_on_backend(operation: str, plainly: Callable, stride: int, dilation: int, *arrays: jax.Array) -> Any:
  """Runs `plainly`, or on CPUs what is installed in its place. jax decides when it lowers the program: a program for a
  TPU that is compiled on a CPU has the plain implementation."""
  implementation = backend.find(operation, plainly)
  if implementation is plainly:
    return plainly(*arrays, stride, dilation)
  return jax.lax.platform_dependent(*arrays, cpu=lambda *arrays: implementation(*arrays, stride, dilation),
                                    default=lambda *arrays: plainly(*arrays, stride, dilation))


def convolve_plainly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """A single XLA convolution. A 1 x 1 convolution at stride 1 is a matrix product over the pixels; not at stride 2,
  because XLA for GPUs fails when it fuses the strided slice into the product (jax 0.10.2, openxla/xla issue 47381)."""
  if kernel_hwCD.shape[:2] == (1, 1) and stride == 1:
    return images_BHWC @ kernel_hwCD[0, 0]
  padding = [(dilation * (size // 2),) * 2 for size in kernel_hwCD.shape[:2]]
  return jax.lax.conv_general_dilated(images_BHWC, kernel_hwCD, (stride, stride), padding,
                                      rhs_dilation=(dilation, dilation), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def gradients_plainly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                      dilation: int) -> tuple[jax.Array, jax.Array]:
  """The gradients with respect to the images and to the kernel, as jax derives them."""
  _, vjp = jax.vjp(lambda images, kernel: convolve_plainly(images, kernel, stride, dilation), images_BHWC, kernel_hwCD)
  return vjp(gradient_BhwD)
