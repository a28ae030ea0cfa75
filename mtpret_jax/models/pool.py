"""The max pool of the stem, the mean of DenseNet's transitions, and the mean over a map.

The max pool has two formulations with the same result and the same gradient; each backend gets the faster one. The
choice is made here and not in the overrides for CPUs, because GPUs and CPUs use the same formulation.

Letters: B images, H rows, W columns, C channels; h w rows and columns of the output; a b the row and the column (0 or
1) within the 2 x 2 input pixels of an output pixel.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

OUTSIDE = -1.0  # value of the padding: less than anything that ReLU returns
NO_PLACE = 9    # not a place in a window: these are numbered 0 to 8, row by row


def pool_max(images_BHWC: jax.Array) -> jax.Array:
  """3 x 3 maximum at stride 2, padded by one: (B, ceil(H / 2), ceil(W / 2), C). No value may be negative (call it after
  ReLU). If pixels of a window are equal, the first gets the gradient, as in PyTorch."""
  return jax.lax.platform_dependent(images_BHWC, tpu=pool_windows, default=pool_pairs)


def pool_windows(images_BHWC: jax.Array) -> jax.Array:
  """XLA's own pool. Its gradient is a scatter, which is fast on TPUs only: there the stem and this pool access 1.2 GB
  for 32 images of 224 px, and 4.3 GB with `pool_pairs`."""
  return jax.lax.reduce_window(images_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0)))


def pool_pairs(images_BHWC: jax.Array) -> jax.Array:
  """Elementwise operations on pairs of rows and of columns, without a scatter in the gradient."""
  odd = [side % 2 for side in images_BHWC.shape[1:3]]
  return pool_even(jnp.pad(images_BHWC, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), constant_values=OUTSIDE))


@jax.custom_vjp
def pool_even(images_BHWC: jax.Array) -> jax.Array:
  """`pool_pairs` of images with even sides."""
  return find_largest(images_BHWC)[0]


def find_largest(images_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(the maximum of each window, its place there: int8 from 0 to 8).

  The gradient uses the place. It must not compare images with maxima in the backward pass: XLA may recompute both there
  with another rounding, and then no pixel of a window equals the maximum and the gradient is lost."""
  largest, column = max_along(images_BHWC, 2)
  (largest_BhwC, row), columns = max_along(largest, 1), split_pairs(column, 1)
  return largest_BhwC, 3 * row + jnp.where(row == 0, columns[0], jnp.where(row == 1, columns[1], columns[2]))


def max_along(images: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """(the maximum of three neighbours along `axis` at stride 2, the index of that neighbour). The first one wins a
  tie."""
  neighbours = split_pairs(images, axis)
  largest, which = neighbours[0], jnp.zeros(neighbours[0].shape, jnp.int8)
  for place in (1, 2):
    which = jnp.where(neighbours[place] > largest, jnp.int8(place), which)
    largest = jnp.maximum(largest, neighbours[place])
  return largest, which


def split_pairs(images: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """For each pair along `axis`: the last of the previous pair, the first and the second of this one."""
  first, second = (jax.lax.slice_in_dim(images, at, None, 2, axis) for at in (0, 1))
  padding = [(0, 0, 0)] * images.ndim
  padding[axis] = (1, -1, 0)
  return jax.lax.pad(second, jnp.array(OUTSIDE, images.dtype), padding), first, second


def pool_backward(place_BhwC: jax.Array, gradient_BhwC: jax.Array) -> tuple[jax.Array]:
  """A pixel gets the gradient of each window that it is the maximum of. It lies in the window of its own pair and, if
  it is the second of the pair, in that of the next one, along both axes: in four windows at most."""
  batch, height, width, channels = place_BhwC.shape
  shape_BhawbC = (batch, height, 2, width, 2, channels)
  after = ((0, 0), (0, 1), (0, 1), (0, 0))
  place, gradient = jnp.pad(place_BhwC, after, constant_values=NO_PLACE), jnp.pad(gradient_BhwC, after)
  spread = functools.partial(jax.lax.broadcast_in_dim, shape=shape_BhawbC, broadcast_dimensions=(0, 1, 3, 5))
  row, column = (jax.lax.broadcasted_iota(jnp.int8, shape_BhawbC, axis) for axis in (2, 4))
  total = jnp.zeros(shape_BhawbC, gradient_BhwC.dtype)
  for down, right in itertools.product((0, 1), (0, 1)):
    window = (slice(None), slice(down, down + height), slice(right, right + width))
    place_there = 3 * (row + 1 - 2 * down) + column + 1 - 2 * right  # of the pixel, in that window
    outside = (row < down) | (column < right)
    hit = spread(place[window]) == jnp.where(outside, jnp.int8(-1), place_there)
    total += jnp.where(hit, spread(gradient[window]), 0)
  return (total.reshape(batch, 2 * height, 2 * width, channels),)


pool_even.defvjp(find_largest, pool_backward)


def pool_average(images_BHWC: jax.Array) -> jax.Array:
  """2 x 2 mean at stride 2: (B, H // 2, W // 2, C). As in PyTorch, an odd last row or column is left out. A side of one
  pixel stays as it is."""
  batch, height, width, channels = images_BHWC.shape
  rows, columns = min(height, 2), min(width, 2)
  cells = images_BHWC[:, :height // rows * rows, :width // columns * columns].reshape(
    batch, height // rows, rows, width // columns, columns, channels)
  return cells.mean((2, 4))


def pool_mean(features_BHWC: jax.Array) -> jax.Array:
  """The mean over the map, in float32: (B, C)."""
  return features_BHWC.astype(jnp.float32).mean((1, 2))
