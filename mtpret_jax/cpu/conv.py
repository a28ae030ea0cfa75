"""Convolutions and their gradients as XLA's CPU backend runs them fastest. Nothing here is used on another backend.

Where XLA's time goes by itself (docs/benchmarks.md): what a kernel gradient transposes, it computes again pixel by
pixel; it multiplies by the zeros of an input gradient at stride 2 and, on small maps, of the padding; and one input
channel, or a result of 2 x 2 pixels, runs at a tenth of a matrix product's speed.

Letters: B images, H rows, W columns, C input channels, D output channels; h w rows and columns of the result, or of
the kernel.
"""

import itertools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from mtpret_jax.cpu import winograd

FEW = 4             # rows, of images that are convolved tap by tap and of gradients that are pulled back so to images
FEWER = 2           # rows of gradients that are pulled back so to the kernel, too
NEIGHBOURS = 4      # results in a row that a convolution of one channel computes at once
WIDE = 128          # channels from which a 3 x 3 kernel's gradient is worth transforming
PIXELS = 2048       # of a sum over all pixels that are taken at once: what fits a core's cache


def convolve_split(images_BHWC, kernel_hwCD, stride, dilation):
  """Each device convolves its own images. Left to itself, XLA splits the loops and transpositions here otherwise."""
  mesh = find_mesh(images_BHWC)
  if mesh is None:
    return convolve(images_BHWC, kernel_hwCD, stride, dilation)
  return jax.shard_map(lambda *both: convolve(*both, stride, dilation), mesh=mesh, in_specs=(P(mesh.axis_names), P()),
                       out_specs=P(mesh.axis_names), check_vma=False)(images_BHWC, kernel_hwCD)


def pull_back_split(images_BHWC, kernel_hwCD, gradient_BhwD, stride, dilation):
  """Each device pulls back its own images; the kernel's gradient is the sum over all."""
  def pull_own(*own):
    by_images, by_kernel = pull_back(*own, stride, dilation)
    return by_images, jax.lax.psum(by_kernel, mesh.axis_names)

  mesh = find_mesh(images_BHWC)
  if mesh is None:
    return pull_back(images_BHWC, kernel_hwCD, gradient_BhwD, stride, dilation)
  split = P(mesh.axis_names)
  return jax.shard_map(pull_own, mesh=mesh, in_specs=(split, P(), split), out_specs=(split, P()), check_vma=False)(
    images_BHWC, kernel_hwCD, gradient_BhwD)


def find_mesh(images_BHWC):
  """The devices over which the images are split evenly; None where they are in one place, or cannot be."""
  mesh = jax.sharding.get_abstract_mesh()
  return None if winograd.lies_in_one_place() or len(images_BHWC) % mesh.size else mesh


def convolve(images_BHWC, kernel_hwCD, stride, dilation):
  if kernel_hwCD.shape[:2] == (1, 1):
    return images_BHWC[:, ::stride, ::stride] @ kernel_hwCD[0, 0]
  if images_BHWC.shape[-1] == 1 and dilation == 1 and count_results(images_BHWC, stride)[1] % NEIGHBOURS == 0:
    return convolve_grey(images_BHWC, kernel_hwCD, stride)
  if images_BHWC.shape[-1] == 1:
    return convolve_patches(images_BHWC, kernel_hwCD, stride, dilation)
  if images_BHWC.shape[1] <= FEW:
    return convolve_taps(images_BHWC, kernel_hwCD, stride, dilation)
  if kernel_hwCD.shape[:2] == (3, 3) and stride == dilation == 1 and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
    return winograd.convolve(images_BHWC, kernel_hwCD)
  return convolve_directly(images_BHWC, kernel_hwCD, stride, dilation)


def pull_back(images_BHWC, kernel_hwCD, gradient_BhwD, stride, dilation):
  """The gradients by the images and by the kernel."""
  all_three, (height, width) = (images_BHWC, kernel_hwCD, gradient_BhwD), gradient_BhwD.shape[1:3]
  if kernel_hwCD.shape[:2] == (1, 1):
    return pull_images_points(*all_three, stride), pull_kernel_points(*all_three, stride)
  if images_BHWC.shape[-1] == 1 and dilation == 1 and width % NEIGHBOURS == 0:
    return pull_images_directly(*all_three, stride), pull_kernel_grey(*all_three, stride)
  simple = dilation == 1 and stride <= 2 and all(side % stride == 0 for side in images_BHWC.shape[1:3])
  if kernel_hwCD.shape[:2] != (3, 3) or height <= FEWER or not simple:
    return jax.vjp(lambda *both: convolve(*both, stride, dilation), images_BHWC, kernel_hwCD)[1](gradient_BhwD)
  by_images = {1: pull_images_flipped, 2: pull_images_by_parity}[stride] if height > FEW else pull_images_tapped
  return by_images(*all_three, stride), pull_kernel_3x3(*all_three, stride)


def count_results(images_BHWC, stride):
  return tuple(-(-side // stride) for side in images_BHWC.shape[1:3])


def find_padding(kernel_hwCD, dilation):
  return [(dilation * (size // 2),) * 2 for size in kernel_hwCD.shape[:2]]


def multiply(images_BHWC, kernel_hwCD, strides, padding, **options):
  return jax.lax.conv_general_dilated(images_BHWC, kernel_hwCD, strides, padding,
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options)


def convolve_directly(images_BHWC, kernel_hwCD, stride, dilation):
  return multiply(images_BHWC, kernel_hwCD, (stride, stride), find_padding(kernel_hwCD, dilation),
                  rhs_dilation=(dilation, dilation))


def convolve_patches(images_BHWC, kernel_hwCD, stride, dilation):
  """Every window as one row (h w C long) of a matrix, times the kernel as a matrix."""
  rows, columns, channels, out = kernel_hwCD.shape
  padded = jnp.pad(images_BHWC, ((0, 0), *find_padding(kernel_hwCD, dilation), (0, 0)))
  height, width = count_results(images_BHWC, stride)
  shifted = [padded[:, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
             for i in range(0, rows * dilation, dilation) for j in range(0, columns * dilation, dilation)]
  return jnp.concatenate(shifted, axis=-1) @ kernel_hwCD.reshape(rows * columns * channels, out)


def convolve_taps(images_BHWC, kernel_hwCD, stride, dilation):
  """The sum, in f32, over the kernel's taps of a matrix product each, with no pixel of the padding in it."""
  def find_pixels(side, results, place, size):
    """Those which the tap at this place meets, and how many results before and after them have none for it."""
    offset = dilation * (place - size // 2)
    first, last = max(-(offset // stride), 0), min((side - 1 - offset) // stride, results - 1)
    return slice(stride * first + offset, stride * last + offset + 1, stride), (first, results - 1 - last, 0)

  results, total_BhwD = count_results(images_BHWC, stride), 0.0
  for tap in itertools.product(*map(range, kernel_hwCD.shape[:2])):
    pixels, padding = zip(*map(find_pixels, images_BHWC.shape[1:3], results, tap, kernel_hwCD.shape[:2]), strict=True)
    if all(sum(without) < count for without, count in zip(padding, results, strict=True)):
      product = jnp.matmul(images_BHWC[:, *pixels], kernel_hwCD[tap], preferred_element_type=jnp.float32)
      total_BhwD += jax.lax.pad(product, jnp.float32(0), ((0, 0, 0), *padding, (0, 0, 0)))
  return total_BhwD.astype(images_BHWC.dtype)


# one input channel


def convolve_grey(images_BHW1, kernel_hw1D, stride):
  """Stretches of a row that are read once for `NEIGHBOURS` results take the place of the channels."""
  out_BhvD = multiply(cut_stretches(images_BHW1, kernel_hw1D, stride), spread_kernel(kernel_hw1D, stride),
                      (stride, 1), 'VALID')
  return out_BhvD.reshape(len(images_BHW1), *count_results(images_BHW1, stride), kernel_hw1D.shape[-1])


def count_steps(kernel_hw1D, stride):
  """Columns from one stretch to the next, and the number of such steps that a stretch is long."""
  step = stride * NEIGHBOURS
  return step, -(-(stride * (NEIGHBOURS - 1) + kernel_hw1D.shape[1]) // step)


def cut_stretches(images_BHW1, kernel_hw1D, stride):
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


def spread_kernel(kernel_hw1D, stride):
  """(h, 1, columns of a stretch, NEIGHBOURS x D): the kernel at each neighbour's place."""
  rows, columns, _, out = kernel_hw1D.shape
  step, steps = count_steps(kernel_hw1D, stride)
  places = [jnp.pad(kernel_hw1D[:, :, 0], ((0, 0), (stride * at, step * steps - columns - stride * at), (0, 0)))
            for at in range(NEIGHBOURS)]
  return jnp.stack(places, axis=2).reshape(rows, 1, step * steps, NEIGHBOURS * out)


def pull_kernel_grey(images_BHW1, kernel_hw1D, gradient_BhwD, stride):
  rows, height = kernel_hw1D.shape[0], gradient_BhwD.shape[1]
  stretches = cut_stretches(images_BHW1, kernel_hw1D, stride)
  windows = jnp.stack([stretches[:, row:row + stride * (height - 1) + 1:stride] for row in range(rows)], axis=3)
  columns = rows * stretches.shape[-1]
  by_spread = sum_pixels(windows.reshape(*windows.shape[:3], columns),
                         gradient_BhwD.reshape(*windows.shape[:3], -1))
  spread, gather = jax.vjp(lambda kernel: spread_kernel(kernel, stride), kernel_hw1D)
  return gather(by_spread.reshape(spread.shape))[0]


def pull_images_directly(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  return jax.vjp(lambda images: convolve_directly(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]


# 1 x 1 kernels


def pull_images_points(images_BHWC, kernel_11CD, gradient_BhwD, stride):
  kept = gradient_BhwD @ kernel_11CD[0, 0].T
  spaces = [(0, size - stride * (count - 1) - 1, stride - 1)
            for size, count in zip(images_BHWC.shape[1:3], kept.shape[1:3], strict=True)]
  return jax.lax.pad(kept, jnp.zeros((), kept.dtype), ((0, 0, 0), *spaces, (0, 0, 0)))


def pull_kernel_points(images_BHWC, kernel_11CD, gradient_BhwD, stride):
  return sum_pixels(images_BHWC[:, ::stride, ::stride], gradient_BhwD)[None, None]


def sum_pixels(one_BHWC, other_BHWD):
  """The sum over all pixels of the products of each channel with each: (C, D). Long sums row by row of the images, for
  the cache's sake; not image by image, since those may lie on several devices."""
  batch, height, width, channels = one_BHWC.shape
  rows = max(PIXELS // (batch * width), 1)
  while height % rows:
    rows -= 1

  def add(at, total_CD):
    some, others = (jax.lax.dynamic_slice_in_dim(images, at * rows, rows, axis=1) for images in (one_BHWC, other_BHWD))
    return total_CD + winograd.contract(some, others)

  if height == rows:
    return winograd.contract(one_BHWC, other_BHWD)
  total_CD = jnp.zeros((channels, other_BHWD.shape[-1]), one_BHWC.dtype)
  return jax.lax.fori_loop(0, height // rows, add, total_CD)


# 3 x 3 kernels


def pull_images_tapped(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  return jax.vjp(lambda images: convolve_taps(images, kernel_hwCD, stride, 1), images_BHWC)[1](gradient_BhwD)[0]


def pull_images_flipped(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  """The convolution of the gradient with the kernel turned about its centre."""
  if winograd.suits(gradient_BhwD, kernel_hwCD.shape[2]):
    return winograd.pull_images(gradient_BhwD, kernel_hwCD)
  return convolve_directly(gradient_BhwD, jnp.flip(kernel_hwCD, (0, 1)).swapaxes(2, 3), 1, 1)


def pull_images_by_parity(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  """At stride 2: even and odd rows and columns of the images met different taps, so each quarter of the images has a
  convolution of its own, of 1, 2, 2 and 4 taps, and no zero is multiplied."""
  kernel_hwDC = kernel_hwCD.swapaxes(2, 3)
  taps = (slice(1, 2), slice(2, None, -2))  # the middle one; the last, then the first
  quarters = [multiply(gradient_BhwD, kernel_hwDC[taps[row], taps[column]], (1, 1), ((0, row), (0, column)))
              for row, column in itertools.product((0, 1), (0, 1))]
  pairs = [jnp.stack(quarters[at:at + 2], axis=3) for at in (0, 2)]
  return jnp.stack(pairs, axis=2).reshape(images_BHWC.shape)


def pull_kernel_3x3(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  if stride == 1 and min(kernel_hwCD.shape[2:]) >= WIDE and winograd.suits(images_BHWC, kernel_hwCD.shape[-1]):
    return winograd.pull_kernel(images_BHWC, gradient_BhwD)
  return pull_kernel_transposed(images_BHWC, kernel_hwCD, gradient_BhwD, stride)


def pull_kernel_transposed(images_BHWC, kernel_hwCD, gradient_BhwD, stride):
  """A convolution whose images are the channels, whose channels are the images and whose kernel is the gradient."""
  (_, height, width, _), (_, h, w, _) = images_BHWC.shape, gradient_BhwD.shape
  padding = [(1, 2 + stride * (results - 1) - size) for size, results in ((height, h), (width, w))]
  kernel_ChwD = multiply(turn_channels(images_BHWC), gradient_BhwD.transpose(1, 2, 0, 3), (1, 1), padding,
                         rhs_dilation=(stride, stride))
  return kernel_ChwD.transpose(1, 2, 0, 3)


def turn_channels(images_BHWC):
  """(C, H, W, B), row by row of the images. The loop is what keeps XLA from computing the images again, a pixel at a
  time in the order of the result; an optimization barrier does not, it is gone before the CPU backend fuses."""
  batch, height, width, channels = images_BHWC.shape

  def turn(row, turned_CHWB):
    pixels_WCxB = jax.lax.dynamic_slice_in_dim(images_BHWC, row, 1, axis=1).reshape(batch, width * channels).T
    turned_C1WB = pixels_WCxB.reshape(width, channels, batch).swapaxes(0, 1)[:, None]
    return jax.lax.dynamic_update_slice_in_dim(turned_CHWB, turned_C1WB, row, axis=1)

  return jax.lax.fori_loop(0, height, turn, jnp.zeros((channels, height, width, batch), images_BHWC.dtype))
