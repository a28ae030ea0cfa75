"""The best and the worst predictions of a split, for pictures."""

from collections.abc import Mapping

import numpy as np

from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows

WORST, BEST = 'worst', 'best'


def choose_cases(metrics: Metrics, about: About, rows: Rows, count: int) -> Mapping[str, list[int]]:
  """{'worst': places in `rows` of the `count` images with the largest errors, the largest first; 'best': the same of
  the smallest}. No image is in both. {} for a kind of task that has no error of an image.

  Args:
    rows: one row per image, as for `metrics.score`.
  """
  if metrics.find_errors is None or not len(rows['patient']):
    return {}
  kept = metrics.prepare(about, {**rows, 'place': np.arange(len(rows['patient']))})
  error_N = metrics.find_errors(about, kept)
  place_N, error_N = kept['place'][~np.isnan(error_N)], error_N[~np.isnan(error_N)]
  ordered = place_N[np.argsort(-error_N, kind='stable')].tolist()
  count = min(count, len(ordered) // 2)
  return {WORST: ordered[:count], BEST: ordered[::-1][:count]}
