"""Writes the tables in docs/results.md from results/, and adds the table of a workdir to results/.

    python -m docs.make_results
    python -m docs.make_results --table=runs/real_small --name=real_small --machine="two cores of a Xeon" --hours=12 \\
      --command="python -m mtpret_jax.main --config=configs/table.py:real_small --config.data.archives=archives"
"""

import argparse
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from docs.result_words import FORGETTING_TITLE, INTRO, MUSCLE, MUSCLE_DIFFERS, MUSCLE_INTRO, MUSCLE_TASK, SPLITS, TABLES
from mtpret_jax.evaluation.paired import Difference
from mtpret_jax.report import table_plots, table_text
from mtpret_jax.report.table import CELLS, DIFFERENCES, FORGETTING, SIGNS
from mtpret_jax.report.table_cells import Score, read_rows, sort_scores, write_csv
from mtpret_jax.report.table_forgetting import Forgetting, tabulate_forgetting
from mtpret_jax.report.table_summary import Key, Summary, Table, excludes_zero, make_table, sort_inits, summarise
from mtpret_jax.runtime.atomic_io import write_atomically, write_json

PAGE = pathlib.Path(__file__).with_name('results.md')
RESULTS = pathlib.Path(__file__).parents[1] / 'results'
BEGIN = '<!-- Written by `python -m docs.make_results` from results/. Change those files, then run it. -->'
END = '<!-- Here ends what `python -m docs.make_results` writes. -->'
METADATA = ('command', 'machine', 'hours')


class Published(NamedTuple):
  """One table of results/: its metadata, its cells, and the numbers computed from them."""

  name: str
  metadata: dict[str, Any]
  scores: list[Score]
  table: Table
  forgetting: list[Forgetting]


def list_paths(name: str) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
  """The files of a table in results/: cells, differences and metadata."""
  return RESULTS / f'{name}.csv', RESULTS / f'{name}_differences.csv', RESULTS / f'{name}.json'


def read_table(name: str) -> Published | None:
  """A table of results/; None if it is not there."""
  cells, differences, metadata = list_paths(name)
  if not cells.exists():
    return None
  read = json.loads(metadata.read_text(encoding='utf-8'))
  return Published(name, read, read_rows(cells, Score), make_table(read_rows(differences, Summary), read['signs']),
                   read_forgetting(name))


def name_forgetting(name: str) -> str:
  return f'{name}_forgetting.csv'


def read_forgetting(name: str) -> list[Forgetting]:
  path = RESULTS / name_forgetting(name)
  return read_rows(path, Forgetting) if path.exists() else []


def make_results() -> str:
  """The generated part of the page; '' without a table in results/."""
  published = {name: table for name in TABLES if (table := read_table(name)) is not None}
  if not published:
    return ''
  lines = [INTRO]
  for table in published.values():
    lines += make_section(table)
  lines += next((make_comparison(published[name]) for name in SPLITS
                 if name in published and has_muscle_row(published[name].table)), [])
  return '\n'.join(lines)


def make_section(published: Published) -> list[str]:
  title, words = TABLES[published.name]
  table, picture = published.table, find_picture(published.name)
  lines = ['', f'### {title}', '', words, '', '```sh', published.metadata['command'], '```', '',
           *describe_origin(published)]
  if has_curve(table):
    lines += ['', f'![Score against the share of the labels, for each task](images/{picture.name})']
  for fraction in table.fractions:
    share = f'{table_text.format_fraction(fraction)} of the labels'
    lines += ['', f'Scores with {share}:', '',
              *write_table(table_text.tabulate_scores(table, fraction, table_text.MARKDOWN)),
              '', f'Differences to scratch with {share}:', '',
              *write_table(table_text.tabulate_differences(table, fraction, table_text.MARKDOWN))]
  if published.forgetting:
    lines += ['', FORGETTING_TITLE, '', *table_text.write_markdown(tabulate_forgetting(published.forgetting))]
  return [*lines, '', *list_clear_differences(table)]


def write_table(rows: Sequence[Sequence[str]]) -> list[str]:
  """Without the initialisations that have no cell."""
  return table_text.write_markdown([row for row in rows if set(row[1:]) != {'-'}])


def describe_origin(published: Published) -> list[str]:
  """How many cells and seeds, and which commit, machine and time."""
  scores, metadata = published.scores, published.metadata
  seeds = sorted({score.seed for score in scores})
  commits = list(dict.fromkeys(score.commit for score in scores if score.commit))
  cells, differences, _ = list_paths(published.name)
  return [f'{len(scores):,} cells with {len(seeds)} seeds ({", ".join(map(str, seeds))}); '
          f'{"commit" if len(commits) == 1 else "commits"} {", ".join(commits) or "unknown"}; '
          f'{metadata["hours"]:g} hours on {metadata["machine"]}. Every cell is in '
          f'[{cells.name}](../results/{cells.name}), every difference in '
          f'[{differences.name}](../results/{differences.name})'
          f'{describe_rounds(published)}.']


def describe_rounds(published: Published) -> str:
  file = name_forgetting(published.name)
  return f', every round of stage 2 in [{file}](../results/{file})' if published.forgetting else ''


def list_clear_differences(table: Table) -> list[str]:
  """Which initialisations differ from scratch by more than the noise, in two lines of a list."""
  rows = [row for row in table.summaries.values() if row.difference is not None]
  better, worse = ([f'{row.init} on {row.task} ({table_text.format_fraction(row.fraction)})' for row in rows
                    if excludes_zero(row) and (row.difference or 0) * sign > 0] for sign in (1, -1))
  return [f'Differences whose interval excludes 0: {len(better) + len(worse):,} of {len(rows):,}.', '',
          f'* Better than scratch: {", ".join(better) or "none"}.',
          f'* Worse than scratch: {", ".join(worse) or "none"}.']


def has_curve(table: Table) -> bool:
  """Whether there are several shares of the labels to draw a curve through."""
  return len(table.fractions) > 1


def has_muscle_row(table: Table) -> bool:
  return any((MUSCLE_TASK, init, 1.0) in table.summaries for init in MUSCLE)


def make_comparison(published: Published) -> list[str]:
  """Pneumonia with all labels, beside the row that MUSCLE prints."""
  rows = [['initialisation', 'MUSCLE', 'here', 'seeds']]
  for init, (title, printed) in MUSCLE.items():
    summary = published.table.summaries.get((MUSCLE_TASK, init, 1.0))
    own, seeds = '-', '-'
    if summary is not None and summary.mean is not None:
      spread = '' if summary.sd is None else f' ± {100 * summary.sd:.2f}'
      own, seeds = f'{100 * summary.mean:.2f}{spread}', str(summary.seeds)
    rows.append([f'{title} (`{init}`)', printed, own, seeds])
  return ['', MUSCLE_INTRO.format(title=TABLES[published.name][0]), '', *table_text.write_markdown(rows), '',
          MUSCLE_DIFFERS.format(split=SPLITS[published.name])]


def make_page(page: str) -> str:
  """`page` with its generated part replaced.

  Raises:
    ValueError: the page lacks one of the two comments around that part.
  """
  pattern = re.compile(f'{re.escape(BEGIN)}.*?{re.escape(END)}', re.DOTALL)
  if not pattern.search(page):
    raise ValueError(f'docs/results.md must have the lines {BEGIN} and {END}, and the tables come between them')
  generated = make_results()
  return pattern.sub(lambda _: '\n\n'.join(filter(None, [BEGIN, generated, END])), page, count=1)


def export(workdir: pathlib.Path, name: str, **given: Any) -> list[str]:
  """Adds the table of a workdir to results/NAME.csv, NAME_differences.csv and NAME.json, and draws its picture.

  Cells that results/ already has and the workdir lacks are kept, so several workdirs add up. A cell that both have is
  taken from the workdir.

  Args:
    name: one of TABLES.
    given: `command`, `machine` (in words) and `hours`; None keeps what results/ has.

  Returns:
    Warnings, a line each.

  Raises:
    ValueError: the name is unknown, a field of the metadata is missing, or the command has a path of one machine.
  """
  if name not in TABLES:
    raise ValueError(f'unknown --name={name}: choose one of {", ".join(TABLES)}')
  paths = list_paths(name)
  old_scores, old_rows = (read_rows(path, row) if path.exists() else [] for path, row in
                          zip(paths, (Score, Summary), strict=False))
  old_metadata = json.loads(paths[2].read_text(encoding='utf-8')) if paths[2].exists() else {}
  new_scores, new_rows = read_rows(workdir / CELLS, Score), read_rows(workdir / DIFFERENCES, Summary)
  metadata = merge_metadata(old_metadata, given) | {
    'signs': old_metadata.get('signs', {}) | json.loads((workdir / SIGNS).read_text(encoding='utf-8'))}
  scores = merge_scores(old_scores, new_scores)
  rows = merge_differences(old_rows, new_rows)
  summaries = summarise(scores, {key: make_difference(row) for key, row in rows.items()})
  forgetting = {row[:4]: row for row in (*read_forgetting(name), *(
    read_rows(workdir / FORGETTING, Forgetting) if (workdir / FORGETTING).exists() else ()))}
  RESULTS.mkdir(exist_ok=True)
  write_atomically(paths[0], write_csv(Score._fields, scores))
  write_atomically(paths[1], write_csv(Summary._fields, summaries))
  write_json(paths[2], metadata)
  if forgetting:
    write_atomically(RESULTS / name_forgetting(name), write_csv(Forgetting._fields, forgetting.values()))
  if has_curve(table := make_table(summaries, metadata['signs'])):
    write_atomically(find_picture(name), table_plots.draw_efficiency(table))
  return [f'the difference of {row.init} on {row.task} ({table_text.format_fraction(row.fraction)}) covers '
          f'{rows[row[:3]].seeds} of {row.seeds} seeds: run the table in a workdir that has all of its cells'
          for row in summaries if row.difference is not None and rows[row[:3]].seeds != row.seeds]


def merge_metadata(old: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
  merged: dict[str, Any] = {field: old.get(field) if given.get(field) is None else given[field] for field in METADATA}
  for field, value in merged.items():
    if value is None:
      raise ValueError(f'--{field} is needed, because results/ does not have it yet')
  if re.search(r'(^|[\s=\'"(])[/~]', merged['command']):
    raise ValueError(f'--command={merged["command"]} has a path of one machine: use relative paths, such as archives')
  return merged


def merge_scores(old: Iterable[Score], new: Iterable[Score]) -> list[Score]:
  """All cells; those of `new` replace those of `old` with the same task, initialisation, fraction and seed."""
  merged = {score[:4]: score for score in (*old, *new)}
  tasks = list(dict.fromkeys(score.task for score in merged.values()))
  return sort_scores(merged.values(), tasks, sort_inits(score.init for score in merged.values()))


def merge_differences(old: Iterable[Summary], new: Iterable[Summary]) -> dict[Key, Summary]:
  """{(task, init, fraction): row}, from `new` unless `old` has more seeds."""
  merged: dict[Key, Summary] = {}
  for row in (*old, *new):
    key = row.task, row.init, row.fraction
    if key not in merged or row.seeds >= merged[key].seeds:
      merged[key] = row
  return merged


def make_difference(row: Summary) -> Difference:
  interval = None if row.low is None or row.high is None else (row.low, row.high)
  return Difference(row.difference, interval)


def find_picture(name: str) -> pathlib.Path:
  return PAGE.parent / 'images' / f'{name}_efficiency.png'


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description='Writes the tables in docs/results.md from results/.')
  parser.add_argument('--table', help='workdir of a table to add to results/ first')
  parser.add_argument('--name', help=f'of the table in results/: {", ".join(TABLES)}')
  parser.add_argument('--command', help='that made the table, with relative paths')
  parser.add_argument('--machine', help='in words, such as "two cores of a Xeon"')
  parser.add_argument('--hours', type=float, help='that all its cells took')
  given = parser.parse_args(arguments)
  try:
    if given.table:
      for warning in export(pathlib.Path(given.table), given.name, command=given.command, machine=given.machine,
                            hours=given.hours):
        print(f'Warning: {warning}.')
    write_atomically(PAGE, make_page(PAGE.read_text(encoding='utf-8')))
  except (ValueError, FileNotFoundError) as error:
    parser.error(str(error))


if __name__ == '__main__':
  main()
