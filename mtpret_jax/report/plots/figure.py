"""Figures that look right on light and on dark pages.

matplotlib draws with colours that stand for roles; `to_svg` replaces them by the variables of `template/style.css`,
whose values depend on the reader's colour scheme. Text stays text, in the font of the page.
"""

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from mtpret_jax.report.blocks import Key

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

INK, MUTED, GRID = '#c0de10', '#c0de11', '#c0de12'
SERIES = tuple(f'#c0de0{number}' for number in range(8))
VARIABLES = {INK: '--ink', MUTED: '--muted', GRID: '--line',
             **{colour: f'--series-{number}' for number, colour in enumerate(SERIES)}}
WIDTH, HEIGHT = 3.3, 2.4  # inches
LEFT, RIGHT, TOP = 0.56, 0.18, 0.26  # inches, margins
DIGIT = 0.078  # inches, the width of a digit
MOST_POINTS = 400  # of a line
PREFIX = 'PLOT-'  # of the ids in a plot
STYLE: dict[Any, Any] = {
  'svg.fonttype': 'none', 'svg.hashsalt': 'mtpret_jax', 'text.parse_math': False, 'font.size': 9.0,
  'text.color': INK, 'axes.edgecolor': MUTED, 'axes.labelcolor': INK, 'xtick.color': MUTED, 'ytick.color': MUTED,
  'xtick.labelcolor': INK, 'ytick.labelcolor': INK, 'grid.color': GRID, 'axes.grid': True, 'axes.axisbelow': True,
  'grid.linewidth': 0.6, 'axes.linewidth': 0.6, 'lines.linewidth': 1.5, 'xtick.major.width': 0.6,
  'ytick.major.width': 0.6, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.unicode_minus': True,
  'figure.facecolor': 'none', 'axes.facecolor': 'none', 'savefig.facecolor': 'none', 'axes.formatter.limits': (-6, 6)}


@contextlib.contextmanager
def themed() -> Iterator[None]:
  """Figures made in the `with` block have the style of the page."""
  import matplotlib  # imported here, because it would add half a second to every start
  with matplotlib.rc_context(STYLE):
    yield


def make_axes(xlabel: str, ylabel: str, height: float = HEIGHT, bottom: float = 0.42) -> tuple['Figure', 'Axes']:
  """A figure with one pair of axes; `height` and `bottom` (a margin) in inches. The label of the y axis is above it,
  where it needs no turned head and cannot meet the numbers."""
  from matplotlib.figure import Figure
  from matplotlib.ticker import MaxNLocator
  figure = Figure(figsize=(WIDTH, height))
  axes = figure.add_axes((LEFT / WIDTH, bottom / height, 1 - (LEFT + RIGHT) / WIDTH, 1 - (bottom + TOP) / height))
  axes.set(xlabel=xlabel)
  axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=xlabel.startswith('step')))
  figure.text(0.01, 1 - 0.02 / height, ylabel, va='top', color=MUTED)
  return figure, axes


def make_room(figure: 'Figure') -> None:
  """Moves the left end of all axes to the right if the numbers beside one are too long for the margin."""
  labels = [label for axes in figure.axes for label in axes.yaxis.get_major_formatter().format_ticks(
    axes.yaxis.get_majorticklocs().tolist())]
  needed = (0.1 + DIGIT * max(map(len, labels), default=0)) / WIDTH
  for axes in figure.axes:
    box = axes.get_position()
    if box.x0 < needed:
      axes.set_position((needed, box.y0, box.x1 - needed, box.height))


def set_log_scale(axes: 'Axes', axis: str) -> None:
  """Makes the 'x' or 'y' axis logarithmic, with a few plain numbers such as 0.001 and 10: matplotlib's own labels are
  formulas, which a page does not render."""
  from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
  axes.set(**{f'{axis}scale': 'log'})
  line = axes.xaxis if axis == 'x' else axes.yaxis
  low, high = np.log10(sorted(line.get_view_interval()))
  few = np.floor(high) <= np.ceil(low)  # fewer than two powers of ten are in view
  line.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]) if few else LogLocator(numticks=6))
  line.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.10g}'))
  line.set_minor_formatter(NullFormatter())


def style_series(number: int) -> dict[str, Any]:
  """Colour and line style of a series; past the last colour the lines are dashed."""
  return {'color': SERIES[number % len(SERIES)], 'linestyle': '-' if number < len(SERIES) else '--'}


def make_key(number: int, text: str) -> Key:
  return Key(number % len(SERIES), number >= len(SERIES), text)


def to_svg(figure: 'Figure', label: str) -> Markup:
  """The figure as SVG to be put into HTML. `label` says what it shows to those who cannot see it."""
  make_room(figure)
  file = io.StringIO()
  figure.savefig(file, format='svg', metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
  text = file.getvalue()
  text = re.sub(r'<metadata>.*?</metadata>', '', text[text.index('<svg'):], flags=re.DOTALL)
  text = re.sub(r' xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"', '', text).replace('xlink:href', 'href')
  text = re.sub(r" (d|x|y|x1|y1|x2|y2|width|height|transform|points)=\"[^\"]*\"", shorten_numbers, text)
  text = re.sub(r'font: ([\d.]+)px [^;"]*', r'font-size: \1px', text)
  for colour, variable in VARIABLES.items():
    text = text.replace(colour, f'var({variable})')
  text = name_parts(text)
  return Markup(text.replace('<svg', str(Markup('<svg role="img" aria-label="{}"').format(label)), 1))


def shorten_numbers(attribute: re.Match) -> str:
  """Coordinates need no more than two decimals."""
  return re.sub(r'(\.\d\d)\d+', r'\1', attribute[0])


def name_parts(text: str) -> str:
  """Drops ids that nothing refers to, and gives the others a prefix that `number_plots` replaces."""
  used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
  text = re.sub(r' id="([^"]+)"', lambda found: f' id="{PREFIX}{found[1]}"' if found[1] in used else '', text)
  return re.sub(r'(url\(#|href="#)', rf'\1{PREFIX}', text)


def number_plots(page: str) -> str:
  """The HTML of a page with ids that no two plots share."""
  count = itertools.count(1)
  return re.sub('<svg.*?</svg>', lambda plot: plot[0].replace(PREFIX, f'plot{next(count)}-'), page, flags=re.DOTALL)


def thin(x: Sequence[float], y: Sequence[float | None], most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
  """A line with about `most` points: each is the mean of neighbouring ones. Undefined values become one NaN, at which
  the line is broken."""
  points = np.array([(a, b if is_number(b) else np.nan) for a, b in zip(x, y, strict=True)], float).reshape(-1, 2)
  defined = np.isfinite(points).all(1)
  if len(points) > most:
    edges = np.flatnonzero(np.diff(defined.astype(int))) + 1  # where a stretch of the line begins or ends
    starts = np.union1d(np.linspace(0, len(points), most, endpoint=False).astype(int), edges)
    points = np.add.reduceat(points, starts) / np.diff(starts, append=len(points))[:, None]
    defined = np.isfinite(points).all(1)
  points[~defined] = np.nan
  kept = defined | np.append(False, defined[:-1])  # of neighbouring undefined values, the first is enough
  return points[kept, 0], points[kept, 1]


def is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def pick_evenly(count: int, most: int) -> np.ndarray:
  """At most `most` of `count` indices, at equal distances."""
  return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)
