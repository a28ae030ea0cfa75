"""Weighted boxes fusion (Solovyev, Wang and Gabruseva 2021): the boxes of several detectors, or of an image and its
mirror image, become one list.

Boxes of a class that overlap become one box, the mean of their corners weighted by score. Its score is their mean, less
where not all detectors found it.

Letters: B images, V detectors or views, N all boxes of an image, D slots of the result.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mtpret_jax.models.detection import boxes

IOU = 0.55  # boxes that overlap by more are one: the value of the paper


def fuse(found_V: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
  """The boxes of V detectors as one list, best first.

  Args:
    found_V: of each detector 'boxes' (B, M, 4) in the same unit for all, 'class_id' (B, M), -1 in empty slots, and
      'score' (B, M) in 0-1. M may differ.

  Returns:
    The same with as many slots as the detector with most: 'boxes' (B, D, 4), 'class_id' (B, D) and 'score' (B, D).
  """
  fuse_image = functools.partial(fuse_boxes, detectors=len(found_V),
                                 slots=max(found['score'].shape[1] for found in found_V))
  return jax.vmap(fuse_image)(*(jnp.concatenate([found[field] for found in found_V], axis=1)
                                for field in ('boxes', 'class_id', 'score')))


def fuse_boxes(boxes_N4: jax.Array, class_N: jax.Array, score_N: jax.Array, *, detectors: int,
               slots: int) -> dict[str, jax.Array]:
  """The boxes of one image. The cluster that box n starts lies in slot n, so that shapes are static."""
  score_N, order_N = boxes.top_k(jnp.where(class_N >= 0, score_N, 0), len(score_N))
  boxes_N4, class_N = boxes_N4[order_N], class_N[order_N]

  def add(n: jax.Array, clusters: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    corners_N4, weight_N, count_N = clusters  # sums over the boxes of each cluster
    means_N4 = divide(corners_N4, weight_N[:, None])
    ious_N = jnp.where(class_N == class_N[n], boxes.compute_ious(boxes_N4[n][None], means_N4)[0], 0)
    best = ious_N.argmax()
    slot = jnp.where(ious_N[best] > IOU, best, n)
    return (corners_N4.at[slot].add(score_N[n] * boxes_N4[n]), weight_N.at[slot].add(score_N[n]),
            count_N.at[slot].add(class_N[n] >= 0))

  corners_N4, weight_N, count_N = jax.lax.fori_loop(
    0, len(score_N), add, (jnp.zeros_like(boxes_N4), jnp.zeros_like(score_N), jnp.zeros_like(score_N)))
  # The mean score, times the share of the detectors that found the box. One may find it several times.
  fused_N = divide(weight_N, count_N) * jnp.minimum(count_N, detectors) / detectors
  score_D, index_D = boxes.top_k(fused_N, slots)
  means_N4 = divide(corners_N4, weight_N[:, None])
  return {'boxes': means_N4[index_D], 'class_id': jnp.where(score_D > 0, class_N[index_D], -1), 'score': score_D}


def divide(sums: jax.Array, weights: jax.Array) -> jax.Array:
  """Means; 0 where there is no weight."""
  return jnp.where(weights > 0, sums / jnp.where(weights > 0, weights, 1), 0)
