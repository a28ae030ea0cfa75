"""The report of the papers' table: text, CSV, LaTeX and pictures in its workdir."""

import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from mtpret_jax.report import page, table_plots, table_text
from mtpret_jax.report.table_cells import Cell, Score, make_score, read_results, sort_scores, write_csv
from mtpret_jax.report.table_differences import compute_differences
from mtpret_jax.report.table_forgetting import Forgetting, describe_forgetting, measure_forgetting
from mtpret_jax.report.table_summary import Summary, Table, make_table, sort_inits, summarise
from mtpret_jax.report.words import say_count
from mtpret_jax.runtime import workdir_lock
from mtpret_jax.runtime.atomic_io import write_atomically, write_json

CELLS, DIFFERENCES, FORGETTING, SIGNS = 'cells.csv', 'differences.csv', 'forgetting.csv', 'signs.json'


def finish(config: ConfigDict, cells: Sequence[Cell]) -> None:
  """Writes and prints the table of the cells that are finished.

  Args:
    config: `workdir` gets the report; `tasks` are in the order of its columns; `resamples` is the number of bootstrap
      resamples of the differences.
    cells: all cells of the table.

  Raises:
    ConfigError: the scores of a cell are damaged, or two cells of a task were scored on different images.
  """
  finished = [(cell, results) for cell in cells if (results := read_results(cell)) is not None]
  scores = sort_scores((make_score(cell, results) for cell, results in finished),
                       list(config.tasks), sort_inits(cell.init for cell in cells))
  signs = {cell.task: results['tasks'][cell.task]['sign'] for cell, results in finished}
  summaries = summarise(scores, compute_differences(finished, config.resamples))
  table, forgetting = make_table(summaries, signs), measure_forgetting(cells)
  lines = describe(table, forgetting, len(cells), len(cells) - len(finished))
  workdir = pathlib.Path(config.workdir)
  with workdir_lock.lock(workdir, wait=True):  # several processes may finish at the same time
    paths = write_report(workdir, table, scores, summaries, forgetting, lines)
  print('\n'.join(lines))
  print('See ' + ', '.join(map(str, paths)))
  with workdir_lock.lock(workdir, wait=True):
    page.announce(workdir)


def describe(table: Table, forgetting: Sequence[Forgetting], cells: int, missing: int) -> list[str]:
  """The lines of `table.txt`."""
  lines = table_text.describe_table(table) if table.summaries else ['No cell is finished yet.']
  forgotten = describe_forgetting(forgetting)
  if forgotten:
    lines += ['', *forgotten]
  if missing:
    lines += ['', f'{missing:,} of {say_count(cells, "cell")} {"is" if missing == 1 else "are"} missing, so means may '
                  f'be over different seeds: run the same command again to add what is missing.']
  return lines


def write_report(workdir: pathlib.Path, table: Table, scores: Sequence[Score], summaries: Sequence[Summary],
                 forgetting: Sequence[Forgetting], lines: Sequence[str]) -> list[pathlib.Path]:
  """Writes all files and returns their paths."""
  contents: Mapping[str, str | bytes] = {
    CELLS: write_csv(Score._fields, scores), DIFFERENCES: write_csv(Summary._fields, summaries),
    **({FORGETTING: write_csv(Forgetting._fields, forgetting)} if forgetting else {}),
    'table.tex': table_text.write_latex(table, table_text.name_label(workdir.name)),
    **({'efficiency.png': table_plots.draw_efficiency(table), 'ranks.png': table_plots.draw_ranks(table)}
       if scores else {}),
    'table.txt': '\n'.join(lines) + '\n'}
  for name, content in contents.items():
    write_atomically(workdir / name, content)
  write_json(workdir / SIGNS, table.signs)
  return [workdir / name for name in contents]
