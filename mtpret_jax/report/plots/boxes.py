"""Plots of detection: precision and recall, and FROC. D predicted boxes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mtpret_jax.report.blocks import Plot
from mtpret_jax.report.plots import figure as figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes


class Ranking(NamedTuple):
  """The predicted boxes of a class in descending order of their scores, which of them are true, and how many true boxes
  and images there are. `threshold`: the operating point, or None."""

  score_D: np.ndarray
  hit_D: np.ndarray
  truths: int
  images: int
  threshold: float | None = None

  def find_cut(self) -> int | None:
    """The number of boxes from the operating point on; None without one or without such a box."""
    count = 0 if self.threshold is None else int((self.score_D >= self.threshold).sum())
    return count or None


def draw_precision_recall(rankings: Mapping[str, Ranking], areas: Mapping[str, float | None]) -> Plot:
  """A curve for each class at IoU 0.5."""
  figure, axes = figures.make_axes('recall', 'precision', height=2.8)
  keys = []
  for number, (name, ranking) in enumerate(rankings.items()):
    hits_D, rank_D = np.cumsum(ranking.hit_D), np.arange(1, len(ranking.hit_D) + 1)
    recall_D, precision_D = hits_D / ranking.truths, hits_D / rank_D
    add_curve(axes, number, recall_D, precision_D, ranking.find_cut())
    area = areas.get(name)
    keys.append(figures.make_key(number, name if area is None else f'{name}: AP50 {area:.3f}'))
  axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
  return Plot(figures.to_svg(figure, f'Precision-recall curve of boxes: {", ".join(rankings)}'), 'Precision and recall',
              'Recall: share of the true boxes that are found. Precision: share of the predicted boxes that are right.',
              keys)


def draw_froc(rankings: Mapping[str, Ranking]) -> Plot:
  """Share of the true boxes that are found against the false boxes per image."""
  figure, axes = figures.make_axes('false boxes per image', 'true boxes found', height=2.8)
  keys, most = [], 1.0
  for number, (name, ranking) in enumerate(rankings.items()):
    false_D = np.cumsum(~ranking.hit_D) / ranking.images
    add_curve(axes, number, false_D, np.cumsum(ranking.hit_D) / ranking.truths, ranking.find_cut())
    keys.append(figures.make_key(number, name))
    most = max(most, float(false_D[-1]) if len(false_D) else 0.0)
  axes.set(xlim=(-0.01 * min(most, 8), min(most, 8) * 1.01), ylim=(-0.01, 1.02))
  return Plot(figures.to_svg(figure, f'FROC curve of boxes: {", ".join(rankings)}'), 'FROC',
              'How many true boxes are found, and how many false ones each image costs.', keys)


def add_curve(axes: 'Axes', number: int, x_D: np.ndarray, y_D: np.ndarray, cut: int | None) -> None:
  """A curve over the ranks, with a dot at the last box above the operating point."""
  chosen = figures.pick_evenly(len(x_D), figures.MOST_POINTS)
  axes.plot(x_D[chosen], y_D[chosen], **figures.style_series(number))
  if cut:
    axes.plot(x_D[cut - 1], y_D[cut - 1], 'o', color=figures.style_series(number)['color'], markersize=5)
