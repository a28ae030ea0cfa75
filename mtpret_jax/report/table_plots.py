"""`efficiency.png`, score against the share of the labels, and `ranks.png`, a grid of ranks."""

import io
from typing import TYPE_CHECKING

import numpy as np

from mtpret_jax.report.table_summary import Table
from mtpret_jax.report.table_text import format_fraction
from mtpret_jax.runtime.initial_weights import INITS

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), which colour-blind readers can tell apart, with a marker each; wine in place of
# its yellow, which is too pale for lines. The papers' initialisations have the same colours in every figure.
COLOURS = ('#000000', '#999999', '#56B4E9', '#0072B2', '#882255', '#D55E00', '#009E73', '#CC79A7', '#E69F00')
MARKERS = 'osv^DPX*h'
COLUMNS = 4  # of the label-efficiency curves
SHIFT = 10 ** 0.02  # between the points of two initialisations, whose error bars would otherwise hide each other
MARGIN = 1.5  # beside the smallest and the largest share of the labels


def choose_styles(inits: tuple[str, ...]) -> dict[str, dict]:
  """{init: colour, marker and line style of its curve}."""
  others = [init for init in inits if init not in INITS]
  places = {init: INITS.index(init) if init in INITS else len(INITS) + others.index(init) for init in inits}
  return {init: {'color': COLOURS[place % len(COLOURS)], 'marker': MARKERS[place % len(MARKERS)],
                 'linestyle': '-' if place < len(COLOURS) else '--'} for init, place in places.items()}


def draw_efficiency(table: Table) -> bytes:
  """A PNG with one plot for each task: the mean over seeds, with error bars of one standard deviation."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  columns = min(COLUMNS, max(len(table.tasks), 1))
  rows = -(-len(table.tasks) // columns) or 1
  legend_columns = 2 * columns  # fit below the plots
  legend = 0.25 * -(-len(table.inits) // legend_columns) + 0.1  # inches
  height = 2.7 * rows + legend
  figure = Figure(figsize=(3.2 * columns, height))
  styles = choose_styles(table.inits)
  for place, task in enumerate(table.tasks):
    axes = figure.add_subplot(rows, columns, place + 1)
    for number, init in enumerate(table.inits):
      points = [(100 * fraction, summary.mean, summary.sd or 0.0) for fraction in table.fractions
                if (summary := table.summaries.get((task, init, fraction))) and summary.mean is not None]
      if points:
        shares, means, spreads = np.array(points).T
        shares = shares * SHIFT ** (number - (len(table.inits) - 1) / 2)
        axes.errorbar(shares, means, spreads, label=init, linewidth=1.4, markersize=4, elinewidth=0.8, capsize=2,
                      **styles[init])
    axes.set_xscale('log')
    ticks = [100 * fraction for fraction in table.fractions]
    axes.set_xlim(ticks[0] / MARGIN, ticks[-1] * MARGIN)
    axes.set_xticks(ticks, [f'{tick:.4g}' for tick in ticks])
    axes.minorticks_off()
    lower = '' if table.signs[task] > 0 else ' (lower is better)'
    axes.set(title=f'{task}{lower}', xlabel='labels (% of training patients)', ylabel=table.metrics[task])
    axes.grid(alpha=0.3)
  handles = {label: handle for axes in figure.axes
             for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
  named = [init for init in table.inits if init in handles]
  figure.tight_layout(rect=(0, legend / height, 1, 1))
  figure.legend([handles[init] for init in named], named, loc='lower center', ncols=legend_columns, frameon=False,
                fontsize=9)
  return save(figure)


def draw_ranks(table: Table) -> bytes:
  """A PNG with the rank of each initialisation (row) on each task and fraction (column), and with the mean ranks."""
  from matplotlib.figure import Figure  # imported here, see above
  titles, values, means = [], [], []  # means: the columns of mean ranks, which end a share of the labels
  for fraction in table.fractions:
    for task in table.list_tasks(fraction):
      titles.append(f'{task}, {format_fraction(fraction)}')
      values.append([table.ranks.get((task, init, fraction), np.nan) for init in table.inits])
    means.append(len(titles))
    titles.append(f'mean, {format_fraction(fraction)}')
    values.append([table.mean_ranks.get((init, fraction), np.nan) for init in table.inits])
  grid = np.array(values, float).reshape(len(titles), len(table.inits)).T
  figure = Figure(figsize=(0.55 * len(titles) + 1.8, 0.36 * len(table.inits) + 1.9))
  axes = figure.add_subplot()
  axes.imshow(grid, cmap='viridis_r', vmin=1, vmax=max(len(table.inits), 2), aspect='auto')
  for row, column in np.ndindex(grid.shape):
    rank = grid[row, column]
    words = '-' if np.isnan(rank) else f'{rank:.1f}'.removesuffix('.0')
    dark = not np.isnan(rank) and rank > (1 + len(table.inits)) / 2
    axes.text(column, row, words, ha='center', va='center', fontsize=8, color='black' if not dark else 'white',
              weight='bold' if column in means else 'normal')
  for column in means[:-1]:
    axes.axvline(column + 0.5, color='white', linewidth=3)
  axes.set_xticks(range(len(titles)), titles, rotation=60, ha='right', rotation_mode='anchor', fontsize=8)
  axes.set_yticks(range(len(table.inits)), table.inits, fontsize=8)
  axes.set_title('rank of the mean over seeds,\n1 is the best', fontsize=9)
  figure.tight_layout()
  return save(figure)


def save(figure: 'Figure') -> bytes:
  """A figure as PNG, without the version of matplotlib in it."""
  file = io.BytesIO()
  figure.savefig(file, format='png', dpi=110, metadata={'Software': None})
  return file.getvalue()
