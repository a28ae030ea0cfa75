"""ROC, precision-recall and calibration of findings. N images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtpret_jax.evaluation.metrics.calibration import BINS
from mtpret_jax.report.blocks import Plot
from mtpret_jax.report.plots import figure as figures


class Finding(NamedTuple):
  """The images for which a finding is known: whether it is there and its probability. `threshold` was `chosen` on
  validation, or is the 0.5 of the scores in `evaluation/metrics/classification.py`; None where there is neither."""

  name: str
  present_N: np.ndarray
  score_N: np.ndarray
  threshold: float | None
  chosen: bool

  def count_outcomes(self) -> list[int]:
    """Images by outcome at the threshold, which must be there: found, missed, falsely reported, rightly not reported.
    """
    assert self.threshold is not None
    # A finding is reported from a chosen threshold on, but only above 0.5.
    predicted_N = self.score_N >= self.threshold if self.chosen else self.score_N > self.threshold
    present_N = self.present_N
    return [int(chosen_N.sum()) for chosen_N in (
      predicted_N & present_N, ~predicted_N & present_N, predicted_N & ~present_N, ~predicted_N & ~present_N)]

  def has_both(self) -> bool:
    return 0 < self.present_N.sum() < len(self.present_N)


def draw_roc(findings: Sequence[Finding], areas: Mapping[str, float | None]) -> Plot:
  """A curve for each finding; a dot marks its operating point. `areas` has the AUC of each."""
  from sklearn.metrics import roc_curve
  figure, axes = figures.make_axes('1 − specificity', 'sensitivity', height=2.8)
  axes.plot((0, 1), (0, 1), color=figures.MUTED, linewidth=0.8, linestyle=':')
  keys = []
  for number, finding in enumerate(findings):
    false, true, _ = roc_curve(finding.present_N, finding.score_N)
    chosen = figures.pick_evenly(len(false), figures.MOST_POINTS)
    axes.plot(false[chosen], true[chosen], **figures.style_series(number))
    if finding.threshold is not None:
      hits, misses, alarms, rest = finding.count_outcomes()
      axes.plot(alarms / (alarms + rest), hits / (hits + misses), 'o', color=figures.SERIES[number], markersize=5)
    area = areas.get(finding.name)
    keys.append(figures.make_key(number, finding.name if area is None else f'{finding.name}: AUC {area:.3f}'))
  axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
  return Plot(figures.to_svg(figure, f'ROC curve of {name_all(findings)}'), 'ROC',
              'Each point is a threshold. The dotted line is guessing.', keys)


def draw_precision_recall(findings: Sequence[Finding], areas: Mapping[str, float | None]) -> Plot:
  """A curve for each finding; a dot marks its operating point. `areas` has the AP of each."""
  from sklearn.metrics import precision_recall_curve
  figure, axes = figures.make_axes('recall (sensitivity)', 'precision', height=2.8)
  keys = []
  for number, finding in enumerate(findings):
    precision, recall, _ = precision_recall_curve(finding.present_N, finding.score_N)
    chosen = figures.pick_evenly(len(recall), figures.MOST_POINTS)
    style = figures.style_series(number)
    axes.plot(recall[chosen], precision[chosen], drawstyle='steps-pre', **style)
    axes.axhline(finding.present_N.mean(), color=style['color'], linewidth=0.8, linestyle=':')
    hits, misses, alarms, _ = (0, 0, 0, 0) if finding.threshold is None else finding.count_outcomes()
    if hits + alarms:
      axes.plot(hits / (hits + misses), hits / (hits + alarms), 'o', color=style['color'], markersize=5)
    area = areas.get(finding.name)
    keys.append(figures.make_key(number, finding.name if area is None else f'{finding.name}: AP {area:.3f}'))
  axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
  return Plot(figures.to_svg(figure, f'Precision-recall curve of {name_all(findings)}'), 'Precision and recall',
              'Precision: share of the reported images that have the finding. The dotted line is guessing.', keys)


def draw_calibration(name: str, correct_N: np.ndarray, probability_N: np.ndarray, error: float | None) -> Plot:
  """Observed frequency against predicted probability in the bins of the ECE, above the number of images in each."""
  edges = np.linspace(0, 1, BINS + 1)
  bin_N = np.searchsorted(edges[1:-1], probability_N)
  count_B = np.bincount(bin_N, minlength=BINS)
  used = count_B > 0
  observed_B, predicted_B = (np.bincount(bin_N, values_N, BINS)[used] / count_B[used]
                             for values_N in (correct_N.astype(float), probability_N))
  figure, axes = figures.make_axes('predicted probability', 'observed frequency', height=2.8, bottom=1.05)
  axes.plot((0, 1), (0, 1), color=figures.MUTED, linewidth=0.8, linestyle=':')
  axes.plot(predicted_B, observed_B, marker='o', markersize=4, **figures.style_series(0))
  axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel='')
  axes.tick_params(labelbottom=False)
  box = axes.get_position()
  below = figure.add_axes((box.x0, 0.45 / 2.8, box.width, 0.42 / 2.8))
  below.bar(edges[:-1], count_B, width=0.9 / BINS, align='edge', color=figures.SERIES[0], alpha=0.5, linewidth=0)
  below.set(xlim=(-0.02, 1.02), xlabel='predicted probability', ylabel='')
  below.yaxis.set_major_locator(make_count_ticks())
  caption = '' if error is None else f'ECE {error:.3f}. '
  return Plot(figures.to_svg(figure, f'Calibration of {name}'), f'Calibration: {name}',
              f'{caption}On the dotted line, probabilities are what is observed. Below: images in each bin.')


def name_all(findings: Sequence[Finding]) -> str:
  return ', '.join(finding.name for finding in findings)


def make_count_ticks() -> Any:
  """Two or three whole numbers on an axis of counts."""
  from matplotlib.ticker import MaxNLocator
  return MaxNLocator(2, integer=True)
