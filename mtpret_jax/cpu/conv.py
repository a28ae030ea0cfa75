"""Convolutions and their gradients in the formulations that XLA's CPU backend runs fastest.

What makes XLA slow here when it is left alone:

- It fuses the batch norm and ReLU before a kernel gradient into that gradient's transposition, and computes them again
  for each pixel.
- The images' gradient at stride 2 multiplies by zeros, and so does any convolution of a small map, by its padding.
- A convolution with one input channel, or to a map of 2 x 2 pixels, has a tenth of the speed of a matrix product.

docs/performance.md has what each formulation gains.

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

SMALL_MAP = 4       # rows; the convolution of such a map, and the gradient of its images, go tap by tap
TINY_MAP = 2        # rows of the output; the kernel's gradient goes tap by tap, too
NEIGHBOURS = 4      # outputs in a row that a convolution with one input channel computes at once
MIN_CHANNELS = 128  # from which Winograd's form of the kernel's gradient is faster
MAX_PIXELS = 2048   # summed over at once, so that they stay in a core's cache


def convolve_on_devices(images_BHWC: jax.Array, kernel_hwCD: jax.Array, stride: int, dilation: int) -> jax.Array:
  """`convolve`, in which each device convolves its own images. Otherwise XLA would split the loops below in its own way
  and move images between devices."""
  mesh = find_mesh(images_BHWC)
  if mesh is None:
    return convolve(images_BHWC, kernel_hwCD, stride, dilation)
  return jax.shard_map(lambda images, kernel: convolve(images, kernel, stride, dilation), mesh=mesh,
                       in_specs=(P(mesh.axis_names), P()), out_specs=P(mesh.axis_names), check_vma=False)(
                         images_BHWC, kernel_hwCD)


def gradients_on_devices(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                         dilation: int) -> tuple[jax.Array, jax.Array]:
  """`compute_gradients`, in which each device takes its own images. The kernel's gradient is summed over devices."""
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
  if kernel_hwCD.shape[:2] == (1, 1):
    return images_BHWC[:, ::stride, ::stride] @ kernel_hwCD[0, 0]
  if is_grey(images_BHWC, stride, dilation):
    return convolve_grey(images_BHWC, kernel_hwCD, stride)
  if images_BHWC.shape[1] <= SMALL_MAP:
    return convolve_taps(images_BHWC, kernel_hwCD, stride, dilation)
  if kernel_hwCD.shape[:2] == (3, 3) and stride == dilation == 1 and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
    return winograd.convolve(images_BHWC, kernel_hwCD)
  return convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def compute_gradients(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array, stride: int,
                      dilation: int) -> tuple[jax.Array, jax.Array]:
  """The gradients with respect to the images and to the kernel, on one device."""
  arrays, height = (images_BHWC, kernel_hwCD, gradient_BhwD), gradient_BhwD.shape[1]
  if kernel_hwCD.shape[:2] == (1, 1):
    return images_gradient_1x1(*arrays, stride), kernel_gradient_1x1(*arrays, stride)
  if is_grey(images_BHWC, stride, dilation):
    return images_gradient_directly(*arrays, stride), kernel_gradient_grey(*arrays, stride)
  simple = dilation == 1 and stride <= 2 and all(side % stride == 0 for side in images_BHWC.shape[1:3])
  if kernel_hwCD.shape[:2] != (3, 3) or height <= TINY_MAP or not simple:
    return jax.vjp(lambda images, kernel: convolve(images, kernel, stride, dilation), *arrays[:2])[1](gradient_BhwD)
  if height <= SMALL_MAP:
    by_images = images_gradient_taps(*arrays, stride)
  elif stride == 1:
    by_images = images_gradient_rotated(*arrays)
  else:
    by_images = images_gradient_by_parity(*arrays)
  return by_images, kernel_gradient_3x3(*arrays, stride)


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


# one input channel: the stem


def is_grey(images_BHWC: jax.Array, stride: int, dilation: int) -> bool:
  """Whether `convolve_grey` can compute this convolution."""
  return images_BHWC.shape[-1] == 1 and dilation == 1 and count_results(images_BHWC, stride)[1] % NEIGHBOURS == 0


def convolve_grey(images_BHW1: jax.Array, kernel_hw1D: jax.Array, stride: int) -> jax.Array:
  """Computes `NEIGHBOURS` outputs in a row at once: the stretch of pixels that they depend on serves as the channels of
  an ordinary convolution, which a single channel would not fill."""
  out_BhvD = multiply(cut_stretches(images_BHW1, kernel_hw1D, stride), spread_kernel(kernel_hw1D, stride),
                      (stride, 1), 'VALID')
  return out_BhvD.reshape(len(images_BHW1), *count_results(images_BHW1, stride), kernel_hw1D.shape[-1])


def count_steps(kernel_hw1D: jax.Array, stride: int) -> tuple[int, int]:
  """(columns from the start of a stretch to that of the next, length of a stretch in such steps)."""
  step = stride * NEIGHBOURS
  return step, -(-(stride * (NEIGHBOURS - 1) + kernel_hw1D.shape[1]) // step)


def cut_stretches(images_BHW1: jax.Array, kernel_hw1D: jax.Array, stride: int) -> jax.Array:
  """(B, H + padding, w / NEIGHBOURS, columns of a stretch)"""
  batch, _, width, _ = images_BHW1.shape
  step, steps = count_steps(kernel_hw1D, stride)
  stretches = count_results(images_BHW1, stride)[1] // NEIGHBOURS
  up, left = (pad for pad, _ in find_padding(kernel_hw1D, 1))
  right = (stretches + steps - 1) * step - width - left
  padding = ((0, 0, 0), (up, up, 0), (left, right, 0))
  blocks = jax.lax.pad(images_BHW1[..., 0], jnp.zeros((), images_BHW1.dtype), padding)
  blocks = blocks.reshape(batch, blocks.shape[1], -1, step)
  return jnp.concatenate([blocks[:, :, at:at + stretches] for at in range(steps)], axis=-1)


def spread_kernel(kernel_hw1D: jax.Array, stride: int) -> jax.Array:
  """(h, 1, columns of a stretch, NEIGHBOURS x D): the kernel at each neighbour's place in the stretch."""
  rows, columns, _, out = kernel_hw1D.shape
  step, steps = count_steps(kernel_hw1D, stride)
  places = [jnp.pad(kernel_hw1D[:, :, 0], ((0, 0), (stride * at, step * steps - columns - stride * at), (0, 0)))
            for at in range(NEIGHBOURS)]
  return jnp.stack(places, axis=2).reshape(rows, 1, step * steps, NEIGHBOURS * out)


def kernel_gradient_grey(images_BHW1: jax.Array, kernel_hw1D: jax.Array, gradient_BhwD: jax.Array,
                         stride: int) -> jax.Array:
  """The gradient of the spread kernel as one matrix product, gathered into that of the kernel."""
  rows, height = kernel_hw1D.shape[0], gradient_BhwD.shape[1]
  stretches = cut_stretches(images_BHW1, kernel_hw1D, stride)
  windows = jnp.stack([stretches[:, row:row + stride * (height - 1) + 1:stride] for row in range(rows)], axis=3)
  columns = rows * stretches.shape[-1]
  by_spread = sum_pixels(windows.reshape(*windows.shape[:3], columns),
                         gradient_BhwD.reshape(*windows.shape[:3], -1))
  spread, gather = jax.vjp(lambda kernel: spread_kernel(kernel, stride), kernel_hw1D)
  return gather(by_spread.reshape(spread.shape))[0]


def images_gradient_directly(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array,
                             stride: int) -> jax.Array:
  return jax.vjp(lambda images: convolve_directly(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]


# 1 x 1 kernels


def images_gradient_1x1(images_BHWC: jax.Array, kernel_11CD: jax.Array, gradient_BhwD: jax.Array,
                        stride: int) -> jax.Array:
  kept = gradient_BhwD @ kernel_11CD[0, 0].T
  spaces = [(0, size - stride * (count - 1) - 1, stride - 1)
            for size, count in zip(images_BHWC.shape[1:3], kept.shape[1:3], strict=True)]
  return jax.lax.pad(kept, jnp.zeros((), kept.dtype), ((0, 0, 0), *spaces, (0, 0, 0)))


def kernel_gradient_1x1(images_BHWC: jax.Array, kernel_11CD: jax.Array, gradient_BhwD: jax.Array,
                        stride: int) -> jax.Array:
  return sum_pixels(images_BHWC[:, ::stride, ::stride], gradient_BhwD)[None, None]


def sum_pixels(one_BHWC: jax.Array, other_BHWD: jax.Array) -> jax.Array:
  """The sum over all pixels of each product of two channels: (C, D). Long sums take a few rows of the map at a time,
  which stay in the cache."""
  batch, height, width, channels = one_BHWC.shape
  rows = max(MAX_PIXELS // (batch * width), 1)
  while height % rows:
    rows -= 1

  def add(at: jax.Array, total_CD: jax.Array) -> jax.Array:
    one, other = (jax.lax.dynamic_slice_in_dim(images, at * rows, rows, axis=1) for images in (one_BHWC, other_BHWD))
    return total_CD + winograd.contract(one, other)

  if height == rows:
    return winograd.contract(one_BHWC, other_BHWD)
  total_CD = jnp.zeros((channels, other_BHWD.shape[-1]), one_BHWC.dtype)
  return jax.lax.fori_loop(0, height // rows, add, total_CD)


# 3 x 3 kernels


def images_gradient_taps(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array,
                         stride: int) -> jax.Array:
  return jax.vjp(lambda images: convolve_taps(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]


def images_gradient_rotated(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array) -> jax.Array:
  """At stride 1: the convolution of the gradient with the kernel rotated by 180 degrees."""
  if winograd.suits(gradient_BhwD, kernel_hwCD.shape[2]):
    return winograd.images_gradient(gradient_BhwD, kernel_hwCD)
  return convolve_directly(gradient_BhwD, jnp.flip(kernel_hwCD, (0, 1)).swapaxes(2, 3), 1, 1)


def images_gradient_by_parity(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array) -> jax.Array:
  """At stride 2: pixels in even and in odd rows and columns meet different taps. So each quarter of the pixels has a
  convolution of its own, with 1, 2, 2 and 4 taps, and nothing is multiplied by the zeros between strided pixels."""
  kernel_hwDC = kernel_hwCD.swapaxes(2, 3)
  taps = (slice(1, 2), slice(2, None, -2))  # even: the middle one; odd: the last, then the first
  quarters = [multiply(gradient_BhwD, kernel_hwDC[taps[row], taps[column]], (1, 1), ((0, row), (0, column)))
              for row, column in itertools.product((0, 1), (0, 1))]
  pairs = [jnp.stack(quarters[at:at + 2], axis=3) for at in (0, 2)]
  return jnp.stack(pairs, axis=2).reshape(images_BHWC.shape)


def kernel_gradient_3x3(images_BHWC: jax.Array, kernel_hwCD: jax.Array, gradient_BhwD: jax.Array,
                        stride: int) -> jax.Array:
  if stride == 1 and min(kernel_hwCD.shape[2:]) >= MIN_CHANNELS and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
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
  transposition, pixel by pixel. An optimization barrier does not: XLA removes it before the CPU backend fuses."""
  batch, height, width, channels = images_BHWC.shape

  def transpose_row(row: jax.Array, out_CHWB: jax.Array) -> jax.Array:
    pixels_WCxB = jax.lax.dynamic_slice_in_dim(images_BHWC, row, 1, axis=1).reshape(batch, width * channels).T
    row_C1WB = pixels_WCxB.reshape(width, channels, batch).swapaxes(0, 1)[:, None]
    return jax.lax.dynamic_update_slice_in_dim(out_CHWB, row_C1WB, row, axis=1)

  return jax.lax.fori_loop(0, height, transpose_row, jnp.zeros((channels, height, width, batch), images_BHWC.dtype))
