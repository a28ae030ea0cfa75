"""Box geometry: areas, IoU, box deltas, non-maximum suppression. All shapes are static; nothing leaves the device.

Boxes are (y0, x0, y1, x1), rows before columns as in arrays; deltas are (dy, dx, dh, dw). torchvision has (x0, y0, x1,
y1) and (dx, dy, dw, dh); the numbers are the same. Units are the caller's: pixels, or fractions of the image.

Letters: N M boxes, 4 the coordinates of a box or its deltas. Arrays may have further leading axes unless stated.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

MAX_LOG_SCALE = math.log(1000 / 16)  # limits dh and dw so that exp cannot overflow (torchvision's constant)


def compute_areas(boxes_N4: jax.Array) -> jax.Array:
  """Area of each box, (N,)."""
  return (boxes_N4[..., 2] - boxes_N4[..., 0]) * (boxes_N4[..., 3] - boxes_N4[..., 1])


def compute_ious(boxes_N4: jax.Array, others_M4: jax.Array) -> jax.Array:
  """Intersection over union, (N, M) in 0-1; 0 where both boxes are empty. No further leading axes."""
  top_left = jnp.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
  bottom_right = jnp.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
  sides = jnp.maximum(bottom_right - top_left, 0)
  intersection_NM = sides[..., 0] * sides[..., 1]
  union_NM = compute_areas(boxes_N4)[:, None] + compute_areas(others_M4)[None] - intersection_NM
  # The inner `where` keeps 0 / 0 out of the gradient.
  return jnp.where(union_NM > 0, intersection_NM / jnp.where(union_NM > 0, union_NM, 1), 0)


def to_centres_and_sides(boxes_N4: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(y, x) of the centre and (height, width) of each box, (N, 2) each."""
  sides_N2 = boxes_N4[..., 2:] - boxes_N4[..., :2]
  return boxes_N4[..., :2] + 0.5 * sides_N2, sides_N2


def encode(boxes_N4: jax.Array, anchors_N4: jax.Array, weights: Sequence[float]) -> jax.Array:
  """Box deltas (Ren et al. 2015, section 3.1.2): the regression targets that move each anchor onto its box.

  (dy, dx) is the offset of the centre in anchor sides, (dh, dw) the log of the scale; all four are multiplied by
  `weights` (wy, wx, wh, ww). Not finite where a box is empty.
  """
  centres, sides = to_centres_and_sides(boxes_N4)
  anchor_centres, anchor_sides = to_centres_and_sides(anchors_N4)
  deltas = jnp.concatenate([(centres - anchor_centres) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)
  return deltas * with_rank_of(weights, deltas)


def decode(deltas_N4: jax.Array, anchors_N4: jax.Array, weights: Sequence[float]) -> jax.Array:
  """The inverse of `encode`: applies the deltas to the anchors. The sides of a box are at most 62.5 times those of its
  anchor."""
  deltas_N4 = deltas_N4 / with_rank_of(weights, deltas_N4)
  anchor_centres, anchor_sides = to_centres_and_sides(anchors_N4)
  centres = deltas_N4[..., :2] * anchor_sides + anchor_centres
  # Without the limit, a single wild delta early in training overflows to inf and the loss to NaN.
  half_sides = 0.5 * jnp.exp(jnp.minimum(deltas_N4[..., 2:], MAX_LOG_SCALE)) * anchor_sides
  return jnp.concatenate([centres - half_sides, centres + half_sides], axis=-1)


def with_rank_of(values_4: Sequence[float], like: jax.Array) -> jax.Array:
  """Four numbers with the rank of `like`: implicit rank promotion is an error in the tests."""
  return jnp.asarray(values_4, like.dtype).reshape((1,) * (like.ndim - 1) + (4,))


def clip(boxes_N4: jax.Array, image_size: tuple[float, float]) -> jax.Array:
  """The part of each box inside an image of `image_size` (height, width)."""
  return jnp.clip(boxes_N4, 0, with_rank_of((*image_size, *image_size), boxes_N4))


def top_k(scores_N: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """(scores, indices) of the k highest along the last axis, best first. In a tie, the first one comes first.

  Uses a sort, which stays local. For `jax.lax.top_k`, XLA would gather a batch that is sharded over devices.
  """
  indices = jax.lax.broadcasted_iota(jnp.int32, scores_N.shape, scores_N.ndim - 1)
  descending, order = jax.lax.sort((-scores_N, indices), num_keys=1)
  return -descending[..., :k], order[..., :k]


def nms(boxes_N4: jax.Array, scores_N: jax.Array, threshold: float) -> jax.Array:
  """Greedy non-maximum suppression: (N,) bool, True for the boxes that are kept.

  A box is dropped if its IoU with a kept box of higher score exceeds `threshold`. In a tie, the first box wins. A score
  of -inf marks an empty slot, which is never kept. Keeps the same boxes as torchvision's `nms`. No further leading
  axes: use `jax.vmap`, also over groups of boxes that must not suppress each other, such as classes.

  The textbook loop visits one box after another and would take N sequential steps. Here all boxes are decided at once
  from the previous round's decisions, until nothing changes. After k rounds the k best boxes are final, so the result
  is the greedy one. The number of rounds is the length of the longest chain in which dropping one box keeps the next: a
  handful for thousands of boxes.
  """
  # Best first: a box can then be suppressed only by boxes before it, which makes `rivals` triangular.
  scores_N, order_N = top_k(scores_N, len(scores_N))
  boxes_N4, valid_N = boxes_N4[order_N], scores_N > -jnp.inf
  overlaps_NN = compute_ious(boxes_N4, boxes_N4) > round_down(threshold)
  is_better_NN = jnp.tri(len(boxes_N4), k=-1, dtype=bool)  # the column's box scores higher than the row's
  rivals_NN = overlaps_NN & is_better_NN

  def decide(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    keep_N, _ = carry
    new_keep_N = valid_N & ~(rivals_NN & keep_N[None]).any(1)
    return new_keep_N, (new_keep_N != keep_N).any()

  keep_N, _ = jax.lax.while_loop(lambda carry: carry[1], decide, (valid_N, jnp.array(True)))
  return jnp.zeros_like(keep_N).at[order_N].set(keep_N)  # back to the order of the input


def round_down(threshold: float) -> np.floating:
  """The largest f32 that does not exceed `threshold`.

  torchvision compares in f64, where an f32 IoU of 0.3 is above 0.3. Rounding down gives the same decision in f32.
  """
  nearest = np.float32(threshold)
  return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))
