"""Convolutions and their gradients in the formulations that XLA's CPU backend runs fastest.

What makes XLA slow here by default:

- It fuses the batch norm and ReLU that feed a kernel gradient into the transposition for that gradient, and so
  recomputes them for each pixel.
- A convolution of a small map multiplies mostly padding, and runs at a fraction of the speed of a matrix product.

docs/performance.md shows the speed-up of each formulation.

Letters: B images, H rows, W columns, C input channels, D output channels; h w rows and columns of the kernel, or of the
output.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from mtpret_jax.cpu import winograd

# Rows of a map, up to which the convolution and the gradient of its images are computed tap by tap.
SMALL_MAP = 4
# Rows of the output, up to which the gradient of the kernel is computed tap by tap as well.
TINY_MAP = 2
# Channels from which Winograd's form of the gradient of the kernel is faster.
MIN_CHANNELS = 128


def convolve_on_devices(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """Runs `convolve` on each device's own images. Otherwise XLA would split the loops below in its own way and move
  images between devices."""
  mesh = find_mesh(images_BHWC)
  if mesh is None:
    return convolve(images_BHWC, kernel_hwCD, stride, dilation)
  return jax.shard_map(lambda images, kernel: convolve(images, kernel, stride, dilation), mesh=mesh,
                       in_specs=(P(mesh.axis_names), P()), out_specs=P(mesh.axis_names), check_vma=False)(
                         images_BHWC, kernel_hwCD)


def gradients_on_devices(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                         dilation: int) -> tuple[jax.Array, jax.Array]:
  """Runs `compute_gradients` on each device's own images. The kernel's gradient is summed over devices."""
  mesh = find_mesh(images_BHWC)
  if mesh is None:
    return compute_gradients(images_BHWC, kernel_hwCD, gradient_BhwD, stride, dilation)

  def compute_own(images: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    by_images, by_kernel = compute_gradients(images, kernel, gradient, stride, dilation)
    return by_images, jax.lax.psum(by_kernel, mesh.axis_names)

  split = P(mesh.axis_names)
  return jax.shard_map(compute_own, mesh=mesh, in_specs=(split, P(), split), out_specs=(split, P()), check_vma=False)(
    images_BHWC, kernel_hwCD, gradient_BhwD)


def find_mesh(images_BHWC: jax.Array) -> AbstractMesh | None:
  """The devices to split the images over; None if there is one device or the images do not divide evenly."""
  mesh = jax.sharding.get_abstract_mesh()
  return None if winograd.is_on_one_device() or len(images_BHWC) % mesh.size else mesh


def convolve(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """The convolution of the images on one device, in the fastest formulation for its shape."""
  if images_BHWC.shape[1] <= SMALL_MAP:
    return convolve_taps(images_BHWC, kernel_hwCD, stride, dilation)
  if kernel_hwCD.shape[:2] == (3, 3) and stride == dilation == 1 and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
    return winograd.convolve(images_BHWC, kernel_hwCD)
  return convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def compute_gradients(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                      dilation: int) -> tuple[jax.Array, jax.Array]:
  """The gradients with respect to the images and to the kernel, on one device."""
  height = gradient_BhwD.shape[1]
  simple = dilation == 1 and stride <= 2 and all(side % stride == 0 for side in images_BHWC.shape[1:3])
  if kernel_hwCD.shape[:2] != (3, 3) or height <= TINY_MAP or not simple:
    return jax.vjp(lambda images, kernel: convolve(images, kernel, stride, dilation), images_BHWC, kernel_hwCD)[1](
      gradient_BhwD)
  if stride == 1 and height > SMALL_MAP:
    by_images = images_gradient_rotated(gradient_BhwD, kernel_hwCD)
  else:
    way = convolve_taps if height <= SMALL_MAP else convolve_directly
    by_images = jax.vjp(lambda images: way(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]
  return by_images, kernel_gradient_3x3(images_BHWC, gradient_BhwD, stride)


def count_results(images_BHWC: jax.Array, stride: int) -> tuple[int, int]:
  """Rows and columns of the output."""
  height, width = (-(-side // stride) for side in images_BHWC.shape[1:3])
  return height, width


def find_padding(kernel_hwCD: jax.Array, dilation: int) -> list[tuple[int, int]]:
  return [(dilation * (size // 2),) * 2 for size in kernel_hwCD.shape[:2]]


def multiply(images_BHWC: jax.Array, kernel_hwCD: jax.Array, strides: tuple[int, int], padding: Any,
             **options: Any) -> jax.Array:
  return jax.lax.conv_general_dilated(images_BHWC, kernel_hwCD, strides, padding,
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options)


def convolve_directly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """One convolution of XLA."""
  return multiply(images_BHWC, kernel_hwCD, (stride, stride), find_padding(kernel_hwCD, dilation),
                  rhs_dilation=(dilation, dilation))


def convolve_taps(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """The float32 sum of one matrix product per tap of the kernel, over the pixels that the tap meets outside of the
  padding."""
  def find_pixels(side: int, results: int, place: int, size: int) -> tuple[slice, tuple[int, int, int]]:
    """Along one axis: the pixels that the tap at `place` meets, and how many outputs before and after them it does not
    contribute to."""
    offset = dilation * (place - size // 2)
    first, last = max(-(offset // stride), 0), min((side - 1 - offset) // stride, results - 1)
    return slice(stride * first + offset, stride * last + offset + 1, stride), (first, results - 1 - last, 0)

  results = count_results(images_BHWC, stride)
  total_BhwD: Any = 0.0
  for tap in itertools.product(*map(range, kernel_hwCD.shape[:2])):
    pixels, padding = zip(*map(find_pixels, images_BHWC.shape[1:3], results, tap, kernel_hwCD.shape[:2]), strict=True)
    if all(sum(without) < count for without, count in zip(padding, results, strict=True)):
      product = jnp.matmul(images_BHWC[:, *pixels], kernel_hwCD[tap], preferred_element_type=jnp.float32)
      total_BhwD += jax.lax.pad(product, jnp.float32(0), ((0, 0, 0), *padding, (0, 0, 0)))
  return total_BhwD.astype(images_BHWC.dtype)


# 3 x 3 kernels


def images_gradient_rotated(gradient_BhwD: jax.Array, kernel_hwCD: jax.Array) -> jax.Array:
  """At stride 1: the convolution of the gradient with the kernel rotated by 180 degrees."""
  if winograd.suits(gradient_BhwD, kernel_hwCD.shape[2]):
    return winograd.images_gradient(gradient_BhwD, kernel_hwCD)
  return convolve_directly(gradient_BhwD, jnp.flip(kernel_hwCD, (0, 1)).swapaxes(2, 3), 1, 1)


def kernel_gradient_3x3(images_BHWC: jax.Array, gradient_BhwD: jax.Array, stride: int) -> jax.Array:
  channels, out = images_BHWC.shape[-1], gradient_BhwD.shape[-1]
  if stride == 1 and min(channels, out) >= MIN_CHANNELS and winograd.suits(images_BHWC, out):
    return winograd.kernel_gradient(images_BHWC, gradient_BhwD)
  return kernel_gradient_transposed(images_BHWC, gradient_BhwD, stride)


def kernel_gradient_transposed(images_BHWC: jax.Array, gradient_BhwD: jax.Array, stride: int) -> jax.Array:
  """A convolution with channels as images, images as channels and the gradient as the kernel."""
  (_, height, width, _), (_, h, w, _) = images_BHWC.shape, gradient_BhwD.shape
  padding = [(1, 2 + stride * (results - 1) - size) for size, results in ((height, h), (width, w))]
  kernel_ChwD = multiply(channels_first(images_BHWC), gradient_BhwD.transpose(1, 2, 0, 3), (1, 1), padding,
                         rhs_dilation=(stride, stride))
  return kernel_ChwD.transpose(1, 2, 0, 3)


def channels_first(images_BHWC: jax.Array) -> jax.Array:
  """(C, H, W, B), transposed in a loop over rows. The loop keeps XLA from fusing what computes the images into the
  transposition, pixel by pixel. An optimisation barrier would not help: XLA removes it before the CPU backend fuses."""
  batch, height, width, channels = images_BHWC.shape

  def transpose_row(row: jax.Array, out_CHWB: jax.Array) -> jax.Array:
    pixels_WCxB = jax.lax.dynamic_slice_in_dim(images_BHWC, row, 1, axis=1).reshape(batch, width * channels).T
    row_C1WB = pixels_WCxB.reshape(width, channels, batch).swapaxes(0, 1)[:, None]
    return jax.lax.dynamic_update_slice_in_dim(out_CHWB, row_C1WB, row, axis=1)

  return jax.lax.fori_loop(0, height, transpose_row, jnp.zeros((channels, height, width, batch), images_BHWC.dtype))
