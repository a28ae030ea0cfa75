"""What the detector is asked while training: which box an anchor or a proposal should find, and which of them count.

Ren et al. 2015 in torchvision's reading, with fixed shapes: a choice is a list of slots, some of them empty.

Letters: M annotated boxes, N candidates, S slots.
"""

import jax
import jax.numpy as jnp

from mtpret_jax.models.detection.boxes import find_best

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(ious_MN, real_M, low, high, *, claim):
  """(label_N, box_N): POSITIVE from an overlap of `high` with the best of the `real_M` boxes, NEGATIVE below `low`,
  IGNORED between; the index of that best box.

  `claim`: every box makes POSITIVE the candidates that overlap it most, however little. Unlike torchvision a box that
  no candidate touches claims none; there it would claim all that touch nothing.
  """
  ious_MN = jnp.where(real_M[:, None], ious_MN, -1.0)
  best_N, box_N = ious_MN.max(0), ious_MN.argmax(0)
  label_N = jnp.where(best_N >= high, POSITIVE, jnp.where(best_N < low, NEGATIVE, IGNORED))
  if claim:
    most_M1 = ious_MN.max(1, keepdims=True)
    claimed_N = ((ious_MN == most_M1) & (most_M1 > 0)).any(0)
    label_N = jnp.where(claimed_N, POSITIVE, label_N)
  return label_N, box_N


def choose(label_N, rng, *, count, positives):
  """(index_S, chosen_S): `count` candidates at random, at most `positives` of them POSITIVE, the others NEGATIVE. Where
  there are not enough, or fewer candidates than `count` at all, slots with `chosen_S` false are left."""
  count, positives = min(count, len(label_N)), min(positives, len(label_N))
  chance_N = jax.random.uniform(rng, label_N.shape)
  chance, found = find_best(jnp.where(label_N == POSITIVE, chance_N, -1.0), positives)
  taken = chance >= 0
  chance, others = find_best(jnp.where(label_N == NEGATIVE, chance_N, -1.0), count)
  taken_too = (chance >= 0) & (jnp.arange(count) < count - taken.sum())
  index, chosen = jnp.concatenate([found, others]), jnp.concatenate([taken, taken_too])
  chosen_S, slot_S = find_best(chosen.astype(jnp.int32), count)
  return index[slot_S], chosen_S > 0
