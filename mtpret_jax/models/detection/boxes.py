"""Geometry of boxes (y0, x0, y1, x1): areas, overlaps, codes, suppression. Static shapes, nothing leaves the device.

torchvision has (x0, y0, x1, y1) and codes (dx, dy, dw, dh); ours are rows before columns throughout, as arrays are. The
numbers are the same. Units are the caller's, pixels or shares of the image.

Letters: N M boxes, 4 a box or its code. The leading axes of N4 and M4 arrays may be more, where nothing else is said.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

LARGEST_LOG = math.log(1000 / 16)  # of a box's side over its anchor's, so that exp cannot overflow (torchvision's)


def compute_areas(boxes_N4):
  return (boxes_N4[..., 2] - boxes_N4[..., 0]) * (boxes_N4[..., 3] - boxes_N4[..., 1])


def compute_ious(boxes_N4, others_M4):
  """Intersection over union, (N, M) in 0..1, 0 where both boxes are empty. No leading axes."""
  first = jnp.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
  last = jnp.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
  sides = jnp.maximum(last - first, 0)
  shared_NM = sides[..., 0] * sides[..., 1]
  both_NM = compute_areas(boxes_N4)[:, None] + compute_areas(others_M4)[None] - shared_NM
  return jnp.where(both_NM > 0, shared_NM / jnp.where(both_NM > 0, both_NM, 1), 0)


def find_centres(boxes_N4):
  """Centres and sides, (N, 2) each."""
  sides_N2 = boxes_N4[..., 2:] - boxes_N4[..., :2]
  return boxes_N4[..., :2] + 0.5 * sides_N2, sides_N2


def encode(boxes_N4, anchors_N4, weights):
  """Where each box lies as its anchor sees it: (dy, dx, log height, log width), in sides of the anchor, times `weights`
  (wy, wx, wh, ww); Ren et al. 2015, section 3.1.2. Not finite for empty boxes."""
  centres, sides = find_centres(boxes_N4)
  anchor_centres, anchor_sides = find_centres(anchors_N4)
  code = jnp.concatenate([(centres - anchor_centres) / anchor_sides, jnp.log(sides / anchor_sides)], axis=-1)
  return code * spread(weights, code)


def decode(code_N4, anchors_N4, weights):
  """The boxes that `encode` would give the codes `code_N4`; sides of at most 62.5 of the anchor's."""
  code_N4 = code_N4 / spread(weights, code_N4)
  anchor_centres, anchor_sides = find_centres(anchors_N4)
  centres = code_N4[..., :2] * anchor_sides + anchor_centres
  half = 0.5 * jnp.exp(jnp.minimum(code_N4[..., 2:], LARGEST_LOG)) * anchor_sides
  return jnp.concatenate([centres - half, centres + half], axis=-1)


def spread(four, like):
  """Four numbers in the rank of `like`."""
  return jnp.asarray(four, like.dtype).reshape((1,) * (like.ndim - 1) + (4,))


def clip(boxes_N4, size):
  """The part of each box within an image of `size` (height, width)."""
  return jnp.clip(boxes_N4, 0, spread((*size, *size), boxes_N4))


def find_best(scores_N, count):
  """(score, index) of the `count` highest along the last axis, best first, of equals the first first. As
  `jax.lax.top_k`, which would gather a batch that is split over devices; a sort stays where its rows are."""
  places = jax.lax.broadcasted_iota(jnp.int32, scores_N.shape, scores_N.ndim - 1)
  falling, index = jax.lax.sort((-scores_N, places), num_keys=1)
  return -falling[..., :count], index[..., :count]


def suppress(boxes_N4, scores_N, threshold):
  """Greedy suppression: (N,) bool, the boxes that no kept box of higher score overlaps by more than `threshold`. Of
  equal scores the first goes first. A score of -inf is an empty slot, never kept. The boxes that torchvision's
  `nms` keeps. No leading axes: `jax.vmap` it, over groups of boxes that do not suppress each other too.

  Not one box after the other, which would take N steps: every box is decided by what is known of those before it
  until nothing changes. The first k are right after k rounds, so the end is the greedy answer, and the rounds are as
  many as the longest chain of boxes that free each other, a handful where N is thousands.
  """
  scores_N, order_N = find_best(scores_N, len(scores_N))
  boxes_N4, real_N = boxes_N4[order_N], scores_N > -jnp.inf
  overlaps_NN = compute_ious(boxes_N4, boxes_N4) > round_down(threshold)
  before_NN = jnp.tri(len(boxes_N4), k=-1, dtype=bool)  # column before row
  rivals_NN = overlaps_NN & before_NN

  def decide(carry):
    keep_N, _ = carry
    again_N = real_N & ~(rivals_NN & keep_N[None]).any(1)
    return again_N, (again_N != keep_N).any()

  keep_N, _ = jax.lax.while_loop(lambda carry: carry[1], decide, (real_N, jnp.array(True)))
  return jnp.zeros_like(keep_N).at[order_N].set(keep_N)


def round_down(threshold):
  """The largest f32 that is not above `threshold`: torchvision compares in double precision, so that of boxes that
  overlap by 0.3 in f32, which is above 0.3, one goes."""
  nearest = np.float32(threshold)
  return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))
