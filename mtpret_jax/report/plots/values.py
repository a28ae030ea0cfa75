"""Plots of regression and segmentation: predicted against true values, and distributions. N images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mtpret_jax.report.blocks import Plot
from mtpret_jax.report.plots import figure as figures

if TYPE_CHECKING:
  from matplotlib.axes import Axes

MOST_DOTS = 1500
FEW_DOTS = 100  # up to as many are drawn large


def draw_predicted(truth_N: np.ndarray, predicted_N: np.ndarray, unit: str) -> Plot:
  """Predicted against true values."""
  figure, axes = figures.make_axes(f'true{unit}', f'predicted{unit}', height=2.8)
  ends = [min(truth_N.min(), predicted_N.min()), max(truth_N.max(), predicted_N.max())]
  axes.plot(ends, ends, color=figures.MUTED, linewidth=0.8, linestyle=':')
  add_dots(axes, truth_N, predicted_N)
  return Plot(figures.to_svg(figure, 'Predicted against true values'), 'Predicted and true',
              'On the dotted line, a prediction is exact.' + say_thinned(len(truth_N)))


def draw_differences(truth_N: np.ndarray, predicted_N: np.ndarray, unit: str) -> Plot:
  """The plot of Bland and Altman (1986): the difference against the mean of prediction and truth, with the mean
  difference and the limits of agreement (1.96 standard deviations)."""
  difference_N, mean_N = predicted_N - truth_N, (predicted_N + truth_N) / 2
  middle, spread = float(difference_N.mean()), 1.96 * float(difference_N.std(ddof=1)) if len(truth_N) > 1 else 0.0
  figure, axes = figures.make_axes(f'mean of predicted and true{unit}', f'predicted − true{unit}', height=2.8)
  add_dots(axes, mean_N, difference_N)
  axes.axhline(middle, color=figures.SERIES[1], linewidth=1.2)
  for end in (middle - spread, middle + spread):
    axes.axhline(end, color=figures.SERIES[1], linewidth=0.9, linestyle='--')
  return Plot(figures.to_svg(figure, 'Bland-Altman plot of predicted and true values'), 'Differences (Bland-Altman)',
              f'Predictions are {abs(middle):.3g} too {"high" if middle > 0 else "low"} on average (line); 95 % of the '
              f'differences are expected from {middle - spread:.3g} to {middle + spread:.3g} (dashed).'
              + say_thinned(len(truth_N)))


def add_dots(axes: 'Axes', x_N: np.ndarray, y_N: np.ndarray) -> None:
  chosen = figures.pick_evenly(len(x_N), MOST_DOTS)
  size, alpha = (4.5, 0.8) if len(chosen) <= FEW_DOTS else (2.5, 0.5)
  axes.plot(x_N[chosen], y_N[chosen], 'o', color=figures.SERIES[0], markersize=size, alpha=alpha, markeredgewidth=0)


def say_thinned(count: int) -> str:
  return f' Shown are {MOST_DOTS:,} of {count:,} images.' if count > MOST_DOTS else ''


def draw_distribution(values: Mapping[str, np.ndarray], title: str, xlabel: str) -> Plot:
  """The share of images below each value, a step curve for each name. `values` are without NaN."""
  figure, axes = figures.make_axes(xlabel, 'share of images at or below', height=2.8)
  keys = []
  for number, (name, values_N) in enumerate(values.items()):
    order_N = np.sort(values_N)
    chosen = figures.pick_evenly(len(order_N), figures.MOST_POINTS)
    axes.plot(order_N[chosen], (chosen + 1) / max(len(order_N), 1), drawstyle='steps-post',
              **figures.style_series(number))
    middle = f': median {np.median(values_N):.3f}' if len(values_N) else ''
    keys.append(figures.make_key(number, f'{name}{middle}'))
  axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.01))
  return Plot(figures.to_svg(figure, f'{title} of {", ".join(values)}'), title,
              'A curve that stays low and rises at the right end is good: few images have a low value.', keys)
