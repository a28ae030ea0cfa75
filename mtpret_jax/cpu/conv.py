"""Convolutions and their gradients in the formulations that XLA's CPU backend runs fastest.

XLA computes the gradients of 1 x 1 convolutions as convolutions of transposed maps; matrix products are two to three
times as fast. It computes 3 x 3 convolutions directly; Winograd's form (`winograd.py`) needs 2.25 times fewer
multiplications. A direct convolution of a small map multiplies mostly padding, at a fraction of the speed of a matrix
product. A convolution with a large dilation also multiplies mostly padding. With a smaller dilation, `split_phases`
turns it into a plain convolution of smaller images.

docs/performance.md shows the speed-up of each formulation.

Letters: B images, H rows, W columns, C input channels, D output channels; h w rows and columns of the kernel, or of the
output.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from mtpret_jax.cpu import winograd

# `convolve_taps` computes the convolution of maps of at most this many rows times the dilation, and both gradients, as
# for 1 x 1 kernels. The gradient with respect to the images also comes from it where only the output has at most this
# many.
SMALL_MAP = 4
# The same for maps with an odd number of rows, without dilation: Winograd's form needs an even number.
SMALL_ODD_MAP = 7
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
  if suits_taps(images_BHWC, kernel_hwCD, dilation):
    return convolve_taps(images_BHWC, kernel_hwCD, stride, dilation)
  if stride == 1 < dilation:
    return join_phases(convolve(split_phases(images_BHWC, dilation), kernel_hwCD, 1, 1), images_BHWC.shape, dilation)
  if kernel_hwCD.shape[:2] == (3, 3) and stride == dilation == 1 and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
    return winograd.convolve(images_BHWC, kernel_hwCD)
  return convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def compute_gradients(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                      dilation: int) -> tuple[jax.Array, jax.Array]:
  """The gradients with respect to the images and to the kernel, on one device."""
  if suits_taps(images_BHWC, kernel_hwCD, dilation):
    pull_back = jax.vjp(lambda images: convolve_taps(images, kernel_hwCD, stride, dilation), images_BHWC)[1]
    return *pull_back(gradient_BhwD), multiply_taps(images_BHWC, gradient_BhwD, kernel_hwCD.shape[:2], stride, dilation)
  if stride == 1 < dilation:
    by_images, by_kernel = compute_gradients(split_phases(images_BHWC, dilation), kernel_hwCD,
                                             split_phases(gradient_BhwD, dilation), 1, 1)
    return join_phases(by_images, images_BHWC.shape, dilation), by_kernel
  if kernel_hwCD.shape[:2] != (3, 3) or dilation > 1:
    return jax.vjp(lambda images, kernel: convolve(images, kernel, stride, dilation), images_BHWC, kernel_hwCD)[1](
      gradient_BhwD)
  small = is_small(gradient_BhwD)
  if stride == 1 and not small and winograd.suits(gradient_BhwD, kernel_hwCD.shape[2]):
    by_images = winograd.images_gradient(gradient_BhwD, kernel_hwCD)
  else:
    way = convolve_taps if small else convolve_directly
    by_images = jax.vjp(lambda images: way(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]
  if stride == 1 and min(kernel_hwCD.shape[2:]) >= MIN_CHANNELS and winograd.suits(images_BHWC, kernel_hwCD.shape[3]):
    by_kernel = winograd.kernel_gradient(images_BHWC, gradient_BhwD)
  else:
    by_kernel = jax.vjp(lambda kernel: convolve_directly(images_BHWC, kernel, stride, 1), kernel_hwCD)[1](
      gradient_BhwD)[0]
  return by_images, by_kernel


def suits_taps(images_BHWC: jax.Array, kernel_hwCD: jax.Array, dilation: int) -> bool:
  """Whether `convolve_taps` is the fastest formulation."""
  return kernel_hwCD.shape[:2] == (1, 1) or is_small(images_BHWC, dilation)


def is_small(maps_BHWC: jax.Array, dilation: int = 1) -> bool:
  """Whether one matrix product per tap is faster than any other formulation of a convolution of these maps."""
  rows = maps_BHWC.shape[1]
  return rows <= SMALL_MAP * dilation or (dilation == 1 and rows <= SMALL_ODD_MAP and rows % 2 == 1)


def split_phases(images_BHWC: jax.Array, dilation: int) -> jax.Array:
  """Every `dilation`-th row and column as an image of its own: (B * dilation ** 2, h, w, C), with zeros at the end
  where the sides cannot be divided. The dilated convolution of the images is the plain one of these."""
  batch, height, width, channels = images_BHWC.shape
  h, w = -(-height // dilation), -(-width // dilation)
  padding = ((0, 0), (0, h * dilation - height), (0, w * dilation - width), (0, 0))
  pixels = jnp.pad(images_BHWC, padding).reshape(batch, h, dilation, w, dilation, channels)
  return pixels.transpose(0, 2, 4, 1, 3, 5).reshape(-1, h, w, channels)


def join_phases(images_BhwC: jax.Array, shape: Sequence[int], dilation: int) -> jax.Array:
  """The inverse of `split_phases`: (B, H, W, C). `shape` begins with (B, H, W)."""
  batch, height, width = shape[:3]
  _, h, w, channels = images_BhwC.shape
  pixels = images_BhwC.reshape(batch, dilation, dilation, h, w, channels).transpose(0, 3, 1, 4, 2, 5)
  return pixels.reshape(batch, h * dilation, w * dilation, channels)[:, :height, :width]


def convolve_directly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """One convolution of XLA."""
  padding = [(dilation * (size // 2),) * 2 for size in kernel_hwCD.shape[:2]]
  return jax.lax.conv_general_dilated(images_BHWC, kernel_hwCD, (stride, stride), padding,
                                      rhs_dilation=(dilation, dilation), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def convolve_taps(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """The float32 sum of one matrix product per tap of the kernel, over the pixels that the tap meets outside of the
  padding."""
  results = tuple(-(-side // stride) for side in images_BHWC.shape[1:3])  # rows and columns of the output
  total_BhwD: Any = 0.0
  for tap in itertools.product(*map(range, kernel_hwCD.shape[:2])):
    pixels, places = find_meeting(images_BHWC.shape[1:3], results, tap, kernel_hwCD.shape[:2], stride, dilation)
    if all(place.start < place.stop for place in places):
      product = jnp.matmul(images_BHWC[:, *pixels], kernel_hwCD[tap], preferred_element_type=jnp.float32)
      padding = [(place.start, count - place.stop, 0) for place, count in zip(places, results, strict=True)]
      total_BhwD += jax.lax.pad(product, jnp.float32(0), ((0, 0, 0), *padding, (0, 0, 0)))
  return total_BhwD.astype(images_BHWC.dtype)


def multiply_taps(images_BHWC: jax.Array, gradient_BhwD: jax.Array, size: tuple[int, ...], stride: int,
                  dilation: int) -> jax.Array:
  """The gradient with respect to the kernel of `size`: one matrix product per tap, over the same pixels as in
  `convolve_taps`. (h, w, C, D).

  As jax derives it, it is a sum of arrays of the kernel's size, one for each tap and zero elsewhere. In a step, XLA
  writes each of them and reads them all again in every use of the gradient."""
  products = []
  for tap in itertools.product(*map(range, size)):
    pixels, places = find_meeting(images_BHWC.shape[1:3], gradient_BhwD.shape[1:3], tap, size, stride, dilation)
    if all(place.start < place.stop for place in places):
      products.append(winograd.contract(images_BHWC[:, *pixels], gradient_BhwD[:, *places]))
    else:
      products.append(jnp.zeros((images_BHWC.shape[3], gradient_BhwD.shape[3]), images_BHWC.dtype))
  return jnp.stack(products).reshape(*size, *products[0].shape)


def find_meeting(sides: Sequence[int], results: Sequence[int], tap: Sequence[int], size: Sequence[int], stride: int,
                 dilation: int) -> tuple[list[slice], list[slice]]:
  """(the rows and columns of the image that a tap meets, those of the output that it contributes to); empty if it only
  meets padding. `sides` and `results` are the rows and columns of the image and of the output."""
  pixels, places = [], []
  for side, count, place, taps in zip(sides, results, tap, size, strict=True):
    offset = dilation * (place - taps // 2)
    first, last = max(-(offset // stride), 0), min((side - 1 - offset) // stride, count - 1)
    pixels.append(slice(stride * first + offset, stride * last + offset + 1, stride))
    places.append(slice(first, max(last + 1, first)))
  return pixels, places
