"""The page of the papers' table: means over seeds, differences to scratch, ranks, and links to the cells."""

import pathlib
from collections.abc import Iterator, Sequence

from mtpret_jax.report.blocks import Block, Cell, Page, Plot, Plots, Section, Table, Words, bar, find_scale, link
from mtpret_jax.report.pages.guard import make_sections
from mtpret_jax.report.plots.lines import Line, draw_lines
from mtpret_jax.report.run_files import CELLS, REPORT, RunFiles
from mtpret_jax.report.table_cells import Score, read_rows
from mtpret_jax.report.table_forgetting import Forgetting
from mtpret_jax.report.table_summary import Summary, is_baseline, make_table
from mtpret_jax.report.table_summary import Table as Numbers
from mtpret_jax.report.table_text import (
  CAVEAT,
  DIFFERENCES,
  MARKDOWN,
  NO_DIFFERENCES,
  format_fraction,
  format_mean,
  has_differences,
)
from mtpret_jax.report.words import describe_forgetting, format_change, format_number, format_range

DIFFERENCES_FILE, FORGETTING_FILE, SIGNS = 'differences.csv', 'forgetting.csv', 'signs.json'


def make_page(run: RunFiles) -> Page:
  cells: list[Score] = []
  sections: list[Section] = []

  def read_numbers(run: RunFiles) -> Iterator[Block]:
    cells.extend(read_rows(run.folder / CELLS, Score))
    numbers = make_table(read_rows(run.folder / DIFFERENCES_FILE, Summary), run.read_json(SIGNS))
    sections.extend(make_sections(
      run, ('Label efficiency', lambda run: make_curves(numbers)), ('Scores', lambda run: make_scores(numbers)),
      ('Differences to scratch', lambda run: make_differences(numbers, cells))))
    return iter(())

  make_sections(run, ('The table', read_numbers))
  sections += make_sections(run, ('Forgetting in stage 2', make_forgetting),
                            ('Cells', lambda run: make_cells(run, cells)))
  if not cells:
    run.problems.append('No cell of the table is finished yet.')
  return Page('Initialisations compared', f'{len(cells):,} fine-tuning runs: {run.folder}', sections, run.problems)


def make_curves(numbers: Numbers) -> Iterator[Block]:
  """Score against the share of the labels, a plot for each task."""
  yield Plots([draw_curves(numbers, task) for task in numbers.tasks])
  yield Words(['Mean over seeds, in a band of one standard deviation.'], tone='muted')


def draw_curves(numbers: Numbers, task: str) -> Plot:
  lines = {}
  for init in numbers.inits:
    found = [(100 * fraction, row) for fraction in numbers.fractions
             if (row := numbers.summaries.get((task, init, fraction))) and row.mean is not None]
    if found:
      means = [row.mean or 0.0 for _, row in found]
      spreads = [row.sd or 0.0 for _, row in found]
      lines[init] = Line([share for share, _ in found], means,
                         [mean - spread for mean, spread in zip(means, spreads, strict=True)],
                         [mean + spread for mean, spread in zip(means, spreads, strict=True)])
  better = 'Higher' if numbers.signs[task] > 0 else 'Lower'
  return draw_lines(lines, task, 'labels (% of training patients)', numbers.metrics[task], log='x', markers=True,
                    caption=f'{better} is better.',
                    ticks={100 * fraction: f'{100 * fraction:.4g}' for fraction in numbers.fractions},
                    numbers={init: index for index, init in enumerate(numbers.inits)})


def make_scores(numbers: Numbers) -> Iterator[Block]:
  """A table of means for each share of the labels."""
  for fraction in numbers.fractions:
    tasks = numbers.list_tasks(fraction)
    rows: list[list[Cell]] = []
    for init in numbers.inits:
      rank = numbers.mean_ranks.get((init, fraction))
      rows.append([init, *(strip_bold(format_mean(numbers, (task, init, fraction), MARKDOWN)) for task in tasks),
                   '-' if rank is None else f'{rank:.2f}'])
    yield Table(('init', *(f'{task} ({numbers.metrics[task]})' for task in tasks), 'mean rank'), rows,
                f'{format_fraction(fraction)} of the labels: test scores, mean ± standard deviation over seeds; * is '
                f'the best of its column')


def show_share(fraction: float) -> str:
  """'5 %', which is not broken into two lines."""
  return format_fraction(fraction).replace(' ', '\u00a0')


def strip_bold(cell: str) -> str:
  return f'{cell[2:-2]} *' if cell.startswith('**') else cell


def make_differences(numbers: Numbers, cells: Sequence[Score]) -> Iterator[Block]:
  """A forest plot of the differences of each task, as a table. `cells`: all that are finished."""
  if not has_differences(numbers):
    yield Words([NO_DIFFERENCES], tone='muted')
    return
  yield Words([DIFFERENCES, CAVEAT], tone='muted')
  for task in numbers.tasks:
    found = [row for (name, init, _), row in sorted(numbers.summaries.items(), key=lambda item: item[0][2])
             if name == task and not is_baseline(init) and row.difference is not None]
    if not found:
      continue
    scale = find_scale([0.0, *(end for row in found for end in (row.difference, row.low, row.high))])
    rows: list[tuple[Cell, ...]] = []
    for row in found:
      interval = None if row.low is None or row.high is None else (row.low, row.high)
      star = ' *' if interval and not interval[0] <= 0 <= interval[1] else ''
      rows.append((row.init, show_share(row.fraction), f'{format_change(row.difference)}{star}',
                   '' if interval is None else ' to '.join(map(format_change, interval)),
                   bar(row.difference, interval, scale, 0.0), f'{count_shared_seeds(row, cells)}'))
    yield Table(('init', 'labels', f'difference in {numbers.metrics[task]}', '95 % interval',
                 f'{format_change(scale[0])} to {format_change(scale[1])}', 'seeds'), rows, task,
                text_columns=(0, 1, 4))


def count_shared_seeds(row: Summary, cells: Sequence[Score]) -> int:
  """The seeds that an initialisation and scratch both have."""
  own, other = ({cell.seed for cell in cells if (cell.task, cell.fraction) == (row.task, row.fraction) and chosen(cell)}
                for chosen in (lambda cell: cell.init == row.init, lambda cell: is_baseline(cell.init)))
  return len(own & other)


def make_forgetting(run: RunFiles) -> Iterator[Block]:
  """What each run of stage 2 had forgotten at its end, in the mean over seeds."""
  if not run.has(FORGETTING_FILE):
    return
  last: dict[tuple[str, float, str], Forgetting] = {}
  for row in sorted(read_rows(run.folder / FORGETTING_FILE, Forgetting), key=lambda row: row.round):
    last[row.init, row.fraction, row.task] = row
  yield Table(('init', 'labels', 'task', 'rounds', 'since its best round', 'seeds'),
              [(row.init, show_share(row.fraction), row.task, f'{row.round}', describe_forgetting(row.forgetting),
                f'{row.seeds}') for row in last.values()],
              'Validation score after the last round, compared with the best earlier one; mean over seeds.',
              text_columns=(0, 1, 2))


def make_cells(run: RunFiles, cells: list[Score]) -> Iterator[Block]:
  """Every fine-tuning run."""
  if not cells:
    return
  rows: list[tuple[Cell, ...]] = []
  for cell in cells:
    folder = pathlib.PurePosixPath('cells', cell.task, cell.init, f'{cell.fraction:g}', str(cell.seed))
    name = f'{cell.task}, {cell.init}'
    rows.append((link(name, f'{folder}/{REPORT}') if run.has(f'{folder}/{REPORT}') else name,
                 show_share(cell.fraction), str(cell.seed), cell.metric, format_number(cell.value),
                 '' if cell.low is None or cell.high is None else format_range((cell.low, cell.high)),
                 '-' if cell.images is None else f'{cell.images:,}'))
  yield Table(('cell', 'labels', 'seed', 'score', 'value', '95 % interval', 'training images'), rows,
              f'All {len(cells):,} cells', text_columns=(0, 1, 3), folded=len(cells) > 12)
