"""Thresholds of findings: chosen on one split, judged on another. A finding is present if it reaches its threshold.

The scores at 0.5 are in `classification.py`.
"""

from collections.abc import Mapping

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.evaluation.metrics.scoring import About, Rows, Thresholds
from mtpret_jax.evaluation.metrics.threshold_metrics import list_scored_findings

YOUDEN = 'youden'


def name_classes(about: About) -> list[str]:
  return [about['findings'][t] for t in list_scored_findings(about)]


def choose_thresholds(about: About, rows: Rows, rule: str) -> tuple[dict[str, float], str]:
  """({finding: its threshold}, what the rule is called).

  A finding has none unless there are images with it and without it. `rule` is 'youden', the largest sensitivity +
  specificity (Youden 1950), or a sensitivity such as '0.95': the highest threshold that reaches it. Of equally good
  thresholds, the highest is taken.
  """
  sensitivity = None if rule == YOUDEN else float(rule)
  thresholds = {}
  for t in list_scored_findings(about):
    known_N = rows['label_mask'][:, t]
    present_N = rows['present'][known_N, t] > 0
    if 0 < present_N.sum() < len(present_N):
      thresholds[about['findings'][t]] = choose_threshold(present_N, rows['score'][known_N, t], sensitivity)
  return thresholds, YOUDEN if sensitivity is None else f'sensitivity of at least {sensitivity:g}'


def choose_threshold(present_N: np.ndarray, score_N: np.ndarray, sensitivity: float | None) -> float:
  """One of the scores; see `choose_thresholds`. Images with and without the finding are needed."""
  order = np.argsort(-score_N, kind='stable')
  present_N, score_N = present_N[order], score_N[order]
  ends = np.flatnonzero(np.diff(score_N, append=-np.inf))  # images of equal score pass a threshold together
  hits = np.cumsum(present_N)[ends]
  positives, false_alarms = hits[-1], ends + 1 - hits
  if sensitivity is None:  # in whole numbers, so that ties are ties
    best = (hits * (len(present_N) - positives) - false_alarms * positives).argmax()
  else:
    best = (hits / positives >= sensitivity).argmax()
  return float(score_N[ends[best]])


def make_threshold_scorer(about: About, rows: Rows, thresholds: Mapping[str, float]) -> WeightedScores:
  """'sensitivity', 'specificity', 'PPV' and 'NPV' in 0..1, and 'n', the images whose label is known, as 'NAME: FINDING'
  for each finding with a threshold."""
  counts = {}
  for name, threshold in thresholds.items():
    t = about['findings'].index(name)
    known_N, present_N, found_N = rows['label_mask'][:, t], rows['present'][:, t] > 0, rows['score'][:, t] >= threshold
    counts[name] = np.stack([known_N & present_N & found_N, known_N & present_N & ~found_N,
                             known_N & ~present_N & found_N, known_N & ~present_N & ~found_N]).astype(float)

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    scores: dict[str, np.ndarray] = {}
    for name, counts_4N in counts.items():
      hits, missed, false_alarms, rejected = counts_4N @ weights_NR
      scores |= {f'sensitivity: {name}': divide(hits, hits + missed),
                 f'specificity: {name}': divide(rejected, rejected + false_alarms),
                 f'PPV: {name}': divide(hits, hits + false_alarms), f'NPV: {name}': divide(rejected, rejected + missed),
                 f'n: {name}': hits + missed + false_alarms + rejected}
    return scores

  return compute


THRESHOLDS = Thresholds(name_classes, choose_thresholds, make_threshold_scorer)
