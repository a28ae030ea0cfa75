"""Operating points: the thresholds that a split recommends, and the scores at them, for any kind of task that has them.

Kinds without thresholds (regression, segmentation) have None in `Metrics.thresholds`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from threadpoolctl import threadpool_limits

from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows, check_rows, measure_rows

NAMES = ('sensitivity', 'specificity', 'PPV', 'NPV', 'F1')  # of scores at a threshold; a kind has some of them


def choose(metrics: Metrics, about: About, rows: Rows, rule: str) -> dict[str, Any]:
  """{'thresholds': {class: threshold}, 'rule', 'validation': {class: {'sensitivity', 'specificity', 'n'}}}, chosen on
  `rows`, which has the format that `scoring.score` takes. Undefined scores are None; classes without a threshold are
  left out.

  Raises:
    NotFinite: a prediction is not finite.
  """
  assert metrics.thresholds is not None
  check_rows(metrics, rows)
  thresholds, words = metrics.thresholds.choose(about, metrics.prepare(about, rows), rule)
  scores = measure(metrics, about, rows, thresholds, resamples=0)
  return {'thresholds': thresholds, 'rule': words, 'validation': {
    name: {'sensitivity': own['sensitivity']['value'],
           'specificity': own['specificity']['value'] if 'specificity' in own else None, 'n': own['n']}
    for name, own in scores.items()}}


def measure(metrics: Metrics, about: About, rows: Rows, thresholds: Mapping[str, float], *, resamples: int,
            seed: int = 0) -> dict[str, dict[str, Any]]:
  """{class: {'threshold', 'n', and of those of NAMES that the kind has {'value', 'interval'}}} at given thresholds.
  Intervals are those of `scoring.score`."""
  assert metrics.thresholds is not None
  make_scorer = metrics.thresholds.make_scorer
  at_thresholds = dataclasses.replace(
    metrics, make_scorer=lambda about, rows: make_scorer(about, rows, thresholds))
  with threadpool_limits(1, 'blas'):  # as in `scoring.score`
    found = measure_rows(at_thresholds, about, metrics.prepare(about, rows), resamples, seed)
  scores: dict[str, dict[str, Any]] = {}
  for title, threshold in thresholds.items():
    if f'n: {title}' in found:
      scores[title] = {'threshold': threshold, 'n': int(found[f'n: {title}']['value'] or 0),
                       **{name: found[f'{name}: {title}'] for name in NAMES if f'{name}: {title}' in found}}
  return scores

