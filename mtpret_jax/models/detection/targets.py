"""Training targets of the RPN and the RoI head (Ren et al. 2015, as in torchvision).

Each candidate (an anchor for the RPN, a proposal for the RoI head) is matched with an annotated box, and a random
sample of candidates enters the loss. Shapes are fixed: a sample is a list of slots, some of them empty.

Letters: M annotated boxes, N candidates, S slots of the sample.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtpret_jax.models.detection import boxes

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def make_targets(
    candidates_N4: jax.Array, valid_N: jax.Array, boxes_M4: jax.Array, class_M: jax.Array, rng: jax.Array, *,
    match_iou: tuple[float, float], sample_size: tuple[int, int], allow_low_quality: bool, weights: Sequence[float],
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
  """Samples candidates of one image and gives each its target.

  Args:
    valid_N: False for empty slots among the candidates.
    class_M: class of each annotated box from 0, -1 in empty slots.
    match_iou: IoU with an annotated box: (background below this, object from this on).
    sample_size: (candidates in the sample, the maximum number of positives among them).
    allow_low_quality: see `match`.
    weights: of the box deltas, see `boxes.encode`.

  Returns:
    (index_S, sampled_S4, targets): which candidates were drawn, their boxes, and a dict of
      target_class (S,): from 1, 0 is the background.
      target_deltas (S, 4): from the candidate to its box, zero for the background.
      sampled (S,) bool: False for empty slots.
  """
  label_N, match_N = match(boxes.compute_ious(boxes_M4, candidates_N4), class_M >= 0, *match_iou,
                           allow_low_quality=allow_low_quality)
  label_N = jnp.where(valid_N, label_N, IGNORED)
  index_S, sampled_S = sample(label_N, rng, count=sample_size[0], max_positives=sample_size[1])
  positive_S = sampled_S & (label_N[index_S] == POSITIVE)
  sampled_S4, match_S = candidates_N4[index_S], match_N[index_S]
  deltas_S4 = boxes.encode(boxes_M4[match_S], sampled_S4, weights)
  return index_S, sampled_S4, {
    'target_class': jnp.where(positive_S, class_M[match_S] + 1, 0),
    'target_deltas': jnp.where(positive_S[:, None], deltas_S4, 0),  # `encode` is not finite for empty boxes
    'sampled': sampled_S}


def match(iou_MN: jax.Array, valid_M: jax.Array, low: float, high: float, *,
          allow_low_quality: bool) -> tuple[jax.Array, jax.Array]:
  """(label_N, match_N): whether each candidate is an object, and the index of the box it overlaps most.

  A candidate is POSITIVE if its IoU with that box is at least `high`, NEGATIVE below `low`, IGNORED in between.

  `allow_low_quality` also makes the best candidates of each box POSITIVE, however small their IoU, so that every box
  has an anchor. A box that overlaps no candidate gets none; torchvision would give it all candidates that overlap
  nothing.
  """
  iou_MN = jnp.where(valid_M[:, None], iou_MN, -1.0)  # an empty slot is never the best box
  best_N, match_N = iou_MN.max(0), iou_MN.argmax(0)
  label_N = jnp.where(best_N >= high, POSITIVE, jnp.where(best_N < low, NEGATIVE, IGNORED))
  if allow_low_quality:
    best_M1 = iou_MN.max(1, keepdims=True)  # ties are common on a regular grid of anchors: all of them are positive
    is_best_N = ((iou_MN == best_M1) & (best_M1 > 0)).any(0)
    label_N = jnp.where(is_best_N, POSITIVE, label_N)
  return label_N, match_N


def sample(label_N: jax.Array, rng: jax.Array, *, count: int, max_positives: int) -> tuple[jax.Array, jax.Array]:
  """(index_S, sampled_S): `count` random candidates, at most `max_positives` of them POSITIVE, the rest NEGATIVE.

  If there are too few, the remaining slots are empty: `sampled_S` is False there. S is `count`, or N if that is less.
  """
  count, max_positives = min(count, len(label_N)), min(max_positives, len(label_N))
  priority_N = jax.random.uniform(rng, label_N.shape)  # the highest random numbers are a draw without replacement
  priority, positives = boxes.top_k(jnp.where(label_N == POSITIVE, priority_N, -1.0), max_positives)
  keep_positive = priority >= 0
  # Negatives fill whatever the positives leave free.
  priority, negatives = boxes.top_k(jnp.where(label_N == NEGATIVE, priority_N, -1.0), count)
  keep_negative = (priority >= 0) & (jnp.arange(count) < count - keep_positive.sum())
  index, keep = jnp.concatenate([positives, negatives]), jnp.concatenate([keep_positive, keep_negative])
  keep_S, slot_S = boxes.top_k(keep.astype(jnp.int32), count)  # full slots first
  return index[slot_S], keep_S > 0
