"""Lines over steps: losses, learning rates, validation scores."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mtpret_jax.report.blocks import Plot
from mtpret_jax.report.plots import figure as figures


class Line(NamedTuple):
  """Points of a curve; None where undefined. `low` and `high` are the ends of intervals, if there are any."""

  x: Sequence[float]
  y: Sequence[float | None]
  low: Sequence[float] = ()
  high: Sequence[float] = ()


class Band(NamedTuple):
  """A stretch of the x axis with the colour of a series."""

  start: float
  end: float
  number: int


def draw_lines(lines: Mapping[str, Line], title: str, xlabel: str, ylabel: str, *, caption: str = '',
               log: str = '', markers: bool = False, bands: Sequence[Band] = (), best: float | None = None,
               numbers: Mapping[str, int] | None = None, ticks: Mapping[float, str] | None = None) -> Plot:
  """A curve for each line.

  Args:
    log: the axes with a logarithmic scale: '', 'x', 'y' or 'xy'.
    bands: drawn behind the curves.
    best: where a vertical line is drawn.
    numbers: {name: number of its colour}, so that a name has the same colour in all plots.
    ticks: {place: label} of the x axis.
  """
  figure, axes = figures.make_axes(xlabel, ylabel)
  for band in bands:
    axes.axvspan(band.start, band.end, color=figures.style_series(band.number)['color'], alpha=0.13, linewidth=0)
  keys = []
  for index, (name, line) in enumerate(lines.items()):
    number = index if numbers is None else numbers[name]
    style = figures.style_series(number)
    x, y = figures.thin(line.x, line.y)
    few = markers or len(x) < 12
    axes.plot(x, y, marker='o' if few else None, markersize=3.5, **style)
    if len(line.low) == 1:  # a band of one point is nothing
      axes.vlines(line.x, line.low, line.high, color=style['color'], alpha=0.5, linewidth=3)
    elif line.low:
      axes.fill_between(line.x, line.low, line.high, color=style['color'], alpha=0.15, linewidth=0)
    keys.append(figures.make_key(number, name))
  for axis in log:
    figures.set_log_scale(axes, axis)
  if best is not None:
    axes.axvline(best, color=figures.MUTED, linewidth=0.9, linestyle=':')
  if ticks:
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xticks([], minor=True)
  return Plot(figures.to_svg(figure, f'{title}: {ylabel} against {xlabel}'), title, caption,
              keys if len(keys) > 1 or bands else ())
