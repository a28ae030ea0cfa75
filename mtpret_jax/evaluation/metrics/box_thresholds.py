"""Score thresholds of boxes: chosen on one split, judged on another. A box counts if it reaches that of its class.

A box hits if COCO matches it with a true box of its class at IoU 0.5. The matches of the certain boxes do not depend on
the others, so they are the same at every threshold.
"""

from collections.abc import Mapping

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.evaluation.metrics.scoring import About, Rows, Thresholds

RULE = 'best F1 at IoU 0.5'


def name_classes(about: About) -> list[str]:
  return list(about['box_classes'])


def choose_thresholds(about: About, rows: Rows, rule: str) -> tuple[dict[str, float], str]:
  """({class: the score threshold with the best F1}, RULE). A class has none without a hit. Of equally good thresholds,
  the highest is taken. `rule` is for findings; it is not used."""
  thresholds = {}
  for class_id, name in enumerate(about['box_classes']):
    matched = [image[class_id] for image in rows['matched']]
    score_D = np.concatenate([score_D for score_D, _, _ in matched])
    hit_D = np.concatenate([hit_LD[0] for _, hit_LD, _ in matched])
    if hit_D.any():
      thresholds[name] = choose_threshold(score_D, hit_D, sum(truths for *_, truths in matched))
  return thresholds, RULE


def choose_threshold(score_D: np.ndarray, hit_D: np.ndarray, truths: int) -> float:
  order = np.argsort(-score_D, kind='stable')
  ends = np.flatnonzero(np.diff(score_D[order], append=-np.inf))
  f1 = 2 * np.cumsum(hit_D[order])[ends] / (ends + 1 + truths)
  return float(score_D[order][ends[f1.argmax()]])


def make_threshold_scorer(about: About, rows: Rows, thresholds: Mapping[str, float]) -> WeightedScores:
  """'sensitivity' (the share of true boxes that are found), 'PPV' (the share of found boxes that are true) and 'F1' in
  0..1, and 'n', the true boxes, as 'NAME: CLASS' for each class with a threshold."""
  counts = {}
  for name, threshold in thresholds.items():
    class_id = about['box_classes'].index(name)
    counts[name] = np.array([
      [(hit_LD[0] & (score_D >= threshold)).sum(), (score_D >= threshold).sum(), truths]
      for score_D, hit_LD, truths in (image[class_id] for image in rows['matched'])], float).T

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    scores: dict[str, np.ndarray] = {}
    for name, counts_3N in counts.items():
      hits, found, truths = counts_3N @ weights_NR
      scores |= {f'sensitivity: {name}': divide(hits, truths), f'PPV: {name}': divide(hits, found),
                 f'F1: {name}': divide(2 * hits, found + truths), f'n: {name}': truths}
    return scores

  return compute


THRESHOLDS = Thresholds(name_classes, choose_thresholds, make_threshold_scorer)
