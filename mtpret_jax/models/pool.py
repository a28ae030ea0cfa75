"""The stem's pool, in the formulation that each backend runs fastest, and the mean over the map.

Letters: B images, H rows, W columns, C channels; h w rows and columns of the result; a b which of the two rows, and of
the two columns, that a pixel of the result stands for.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

NOTHING = -1.0  # what lies outside: smaller than all that ReLU leaves
NOWHERE = 9     # no place in a window: they are numbered 0 to 8, row by row


def pool_max(images_BHWC):
  """3 x 3 maximum at stride 2, padded by one, of images that are nowhere negative (after ReLU). Where pixels of a
  window are equal, the first has the gradient, as in PyTorch."""
  return jax.lax.platform_dependent(images_BHWC, tpu=pool_windows, default=pool_pairs)


def pool_windows(images_BHWC):
  """The gradient is a scatter, which TPUs have an instruction sequence for: the stem and this pool access 1.2 GB for 32
  images of 224 px there, and 4.3 GB as maxima of shifted slices."""
  return jax.lax.reduce_window(images_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0)))


def pool_pairs(images_BHWC):
  """Elementwise over pairs of rows and columns, forward and back: elsewhere than on TPUs the scatter is slow."""
  odd = [side % 2 for side in images_BHWC.shape[1:3]]
  return pool_even(jnp.pad(images_BHWC, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), constant_values=NOTHING))


@jax.custom_vjp
def pool_even(images_BHWC):
  return find_largest(images_BHWC)[0]


def find_largest(images_BHWC):
  """The largest of each window and its place there, an int8 from 0 to 8. The gradient follows the place: to compare
  images with maxima backward would lose it wherever XLA computes the two anew with other roundings."""
  largest, column = choose(images_BHWC, 2)
  (largest_BhwC, row), column = choose(largest, 1), cut(column, 1)
  return largest_BhwC, 3 * row + jnp.where(row == 0, column[0], jnp.where(row == 1, column[1], column[2]))


def choose(images, axis):
  """Of the second of the pair before, the first and the second: (the largest, which of them), the first of equals."""
  candidates = cut(images, axis)
  largest, which = candidates[0], jnp.zeros(candidates[0].shape, jnp.int8)
  for place in (1, 2):
    which = jnp.where(candidates[place] > largest, jnp.int8(place), which)
    largest = jnp.maximum(largest, candidates[place])
  return largest, which


def cut(images, axis):
  """Of each pair along `axis`: the second of the pair before, the first, the second."""
  first, second = (jax.lax.slice_in_dim(images, at, None, 2, axis) for at in (0, 1))
  padding = [(0, 0, 0)] * images.ndim
  padding[axis] = (1, -1, 0)
  return jax.lax.pad(second, jnp.array(NOTHING, images.dtype), padding), first, second


def pool_with_memory(images_BHWC):
  return find_largest(images_BHWC)


def pull_back(place_BhwC, gradient_BhwC):
  """Each pixel has the gradient of the windows that it is the largest of: its own pair's and the next pair's."""
  batch, height, width, channels = place_BhwC.shape
  shape_BhawbC = (batch, height, 2, width, 2, channels)
  after = ((0, 0), (0, 1), (0, 1), (0, 0))
  place, gradient = jnp.pad(place_BhwC, after, constant_values=NOWHERE), jnp.pad(gradient_BhwC, after)
  spread = functools.partial(jax.lax.broadcast_in_dim, shape=shape_BhawbC, broadcast_dimensions=(0, 1, 3, 5))
  row, column = (jax.lax.broadcasted_iota(jnp.int8, shape_BhawbC, axis) for axis in (2, 4))
  total = jnp.zeros(shape_BhawbC, gradient_BhwC.dtype)
  for down, right in itertools.product((0, 1), (0, 1)):
    window = (slice(None), slice(down, down + height), slice(right, right + width))
    seen_from = 3 * (row + 1 - 2 * down) + column + 1 - 2 * right  # negative: not in that window
    hit = spread(place[window]) == jnp.where((row < down) | (column < right), jnp.int8(-1), seen_from)
    total += jnp.where(hit, spread(gradient[window]), 0)
  return (total.reshape(batch, 2 * height, 2 * width, channels),)


pool_even.defvjp(pool_with_memory, pull_back)


def pool_mean(features_BHWC):
  """The mean over the image in f32: (B, C)."""
  return features_BHWC.astype(jnp.float32).mean((1, 2))
