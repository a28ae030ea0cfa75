"""Convolutions and their gradients in the formulations that XLA's CPU backend runs fastest.

XLA computes 3 x 3 convolutions directly; Winograd's form (`winograd.py`) needs 2.25 times fewer multiplications. A
direct convolution of a small map multiplies mostly padding, at a fraction of the speed of a matrix product.

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

# `convolve_taps` computes the convolution of maps of at most this many rows. The gradient with respect to the images
# comes from it where the output has at most this many.
SMALL_MAP = 4
# The gradient with respect to the kernel comes from it too where the output has at most this many rows.
TINY_MAP = 2
# With at least this many channels, Winograd's form of the gradient with respect to the kernel is faster.
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
  if kernel_hwCD.shape[:2] != (3, 3) or height <= TINY_MAP or dilation > 1:
    return jax.vjp(lambda images, kernel: convolve(images, kernel, stride, dilation), images_BHWC, kernel_hwCD)[1](
      gradient_BhwD)
  if stride == 1 and height > SMALL_MAP and winograd.suits(gradient_BhwD, kernel_hwCD.shape[2]):
    by_images = winograd.images_gradient(gradient_BhwD, kernel_hwCD)
  else:
    way = convolve_taps if height <= SMALL_MAP else convolve_directly
    by_images = jax.vjp(lambda images: way(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]
  if stride == 1 and min(kernel_hwCD.shape[2:]) >= MIN_CHANNELS and winograd.suits(images_BHWC, kernel_hwCD.shape[3]):
    by_kernel = winograd.kernel_gradient(images_BHWC, gradient_BhwD)
  else:
    by_kernel = jax.vjp(lambda kernel: convolve_directly(images_BHWC, kernel, stride, 1), kernel_hwCD)[1](
      gradient_BhwD)[0]
  return by_images, by_kernel


def convolve_directly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """One convolution of XLA."""
  padding = [(dilation * (size // 2),) * 2 for size in kernel_hwCD.shape[:2]]
  return jax.lax.conv_general_dilated(images_BHWC, kernel_hwCD, (stride, stride), padding,
                                      rhs_dilation=(dilation, dilation), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def convolve_taps(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """The float32 sum of one matrix product per tap of the kernel, over the pixels that the tap meets outside of the
  padding."""
  def find_pixels(side: int, results: int, place: int, size: int) -> tuple[slice, tuple[int, int, int]]:
    """Along one axis: the pixels that the tap at `place` meets, and how many outputs before and after them it does not
    contribute to."""
    offset = dilation * (place - size // 2)
    first, last = max(-(offset // stride), 0), min((side - 1 - offset) // stride, results - 1)
    return slice(stride * first + offset, stride * last + offset + 1, stride), (first, results - 1 - last, 0)

  results = tuple(-(-side // stride) for side in images_BHWC.shape[1:3])  # rows and columns of the output
  total_BhwD: Any = 0.0
  for tap in itertools.product(*map(range, kernel_hwCD.shape[:2])):
    pixels, padding = zip(*map(find_pixels, images_BHWC.shape[1:3], results, tap, kernel_hwCD.shape[:2]), strict=True)
    if all(sum(without) < count for without, count in zip(padding, results, strict=True)):
      product = jnp.matmul(images_BHWC[:, *pixels], kernel_hwCD[tap], preferred_element_type=jnp.float32)
      total_BhwD += jax.lax.pad(product, jnp.float32(0), ((0, 0, 0), *padding, (0, 0, 0)))
  return total_BhwD.astype(images_BHWC.dtype)
