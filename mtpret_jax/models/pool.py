"""The stem's pool, in the formulation that each backend runs fastest, and the mean over the map.

Letters: B images, H rows, W columns, C channels; h w rows and columns of the result; a b which of the two rows, and of
the two columns, that a pixel of the result stands for.
"""

import functools
import itertools

import jax
import jax.numpy as jnp

# The 3 x 3 window of pixel (h, w) holds both rows of the pair h and the second row of the pair before. A side of the
# window is therefore (which of the pair, how many pairs before).
SIDE = ((0, 0), (1, 0), (1, 1))
WINDOW = tuple(itertools.product(SIDE, SIDE))
NOTHING = -1.0  # what lies outside: smaller than all that ReLU leaves


def pool_max(images_BHWC):
  """3 x 3 maximum at stride 2, padded by one, of images that are nowhere negative (after ReLU). Where pixels of a
  window are equal, the first has the gradient on a TPU and they share it elsewhere."""
  return jax.lax.platform_dependent(images_BHWC, tpu=pool_windows, default=pool_pairs)


def pool_windows(images_BHWC):
  """The gradient is a scatter, which TPUs have an instruction sequence for: the stem and this pool access 1.2 GB for 32
  images of 224 px there, and 4.3 GB as maxima of shifted slices."""
  return jax.lax.reduce_window(images_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0)))


def pool_pairs(images_BHWC):
  """Elementwise over pairs of rows and columns, forward and back: elsewhere than on TPUs the scatter is slow."""
  odd = [side % 2 for side in images_BHWC.shape[1:3]]
  return pool_even(jnp.pad(images_BHWC, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0))))


@jax.custom_vjp
def pool_even(images_BHWC):
  def pool_rows(images, axis):
    pairs = jnp.split(images.reshape(*images.shape[:axis], -1, 2, *images.shape[axis + 1:]), 2, axis + 1)
    first, second = (half.squeeze(axis + 1) for half in pairs)
    return jnp.maximum(jnp.maximum(first, second), move(second, axis, 1, NOTHING))
  return pool_rows(pool_rows(images_BHWC, 1), 2)


def pool_with_memory(images_BHWC):
  largest_BhwC = pool_even(images_BHWC)
  return largest_BhwC, (images_BHWC, largest_BhwC)


def pull_back(memory, gradient_BhwC):
  """Each pixel has its share from every window that it is the largest of: its own pair's and the next pair's."""
  images_BHWC, largest_BhwC = memory
  batch, height, width, channels = largest_BhwC.shape
  images_BhawbC = images_BHWC.reshape(batch, height, 2, width, 2, channels)
  share_BhwC = gradient_BhwC / count_largest(images_BhawbC, largest_BhwC).astype(gradient_BhwC.dtype)
  after = ((0, 0), (0, 1), (0, 1), (0, 0))
  largest, share = jnp.pad(largest_BhwC, after, constant_values=NOTHING), jnp.pad(share_BhwC, after)
  spread = functools.partial(jax.lax.broadcast_in_dim, shape=images_BhawbC.shape, broadcast_dimensions=(0, 1, 3, 5))
  second_row, second_column = (jax.lax.broadcasted_iota(jnp.int32, images_BhawbC.shape, axis) == 1 for axis in (2, 4))
  total = jnp.zeros_like(images_BhawbC)
  for down, right in itertools.product((0, 1), (0, 1)):
    window = (slice(None), slice(down, down + height), slice(right, right + width))
    hit = (images_BhawbC == spread(largest[window])) & (second_row | (not down)) & (second_column | (not right))
    total += jnp.where(hit, spread(share[window]), 0)
  return (total.reshape(images_BHWC.shape),)


pool_even.defvjp(pool_with_memory, pull_back)


def count_largest(images_BhawbC, largest_BhwC):
  """How many pixels of each window are its largest."""
  count = 0
  for (row, up), (column, left) in WINDOW:
    height, width = largest_BhwC.shape[1] - up, largest_BhwC.shape[2] - left
    equal = images_BhawbC[:, :height, row, :width, column] == largest_BhwC[:, up:, left:]
    count += jnp.pad(equal.astype(largest_BhwC.dtype), ((0, 0), (up, 0), (left, 0), (0, 0)))
  return count


def move(images, axis, by, filling):
  """The same number of rows, `by` further on."""
  padding = [(0, 0, 0)] * images.ndim
  padding[axis] = (by, -by, 0)
  return jax.lax.pad(images, jnp.array(filling, images.dtype), padding)


def pool_mean(features_BHWC):
  """The mean over the image in f32: (B, C)."""
  return features_BHWC.astype(jnp.float32).mean((1, 2))
