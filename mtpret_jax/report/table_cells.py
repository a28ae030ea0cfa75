"""The scores of the table's cells, and `cells.csv`, which has a row for each finished one."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.test_scores import FILE, is_finished


class Cell(Protocol):
  """One fine-tuning run of the table; `mtpret_jax.stages.table.cells.Cell` is one."""

  @property
  def task(self) -> str: ...
  @property
  def init(self) -> str: ...
  @property
  def fraction(self) -> float: ...
  @property
  def seed(self) -> int: ...
  @property
  def config(self) -> ConfigDict: ...


class Score(NamedTuple):
  """A row of `cells.csv`: the headline score of one cell on the test split.

  `low` and `high` are its 95 % interval over patients. `images` is the number of labelled training images, `steps` the
  number of training steps. None stands for unknown or undefined.
  """

  task: str
  init: str
  fraction: float
  seed: int
  metric: str
  value: float | None
  low: float | None
  high: float | None
  images: int | None
  steps: int | None
  commit: str


def read_results(cell: Cell) -> dict[str, Any] | None:
  """`scores.json` of a cell; None while it is not finished.

  Raises:
    ConfigError: the file is damaged.
  """
  if not is_finished(cell.config):
    return None
  path = pathlib.Path(cell.config.workdir, FILE)
  try:
    results = json.loads(path.read_text(encoding='utf-8'))
    headline = results['tasks'][cell.task]['headline']
    if results['tasks'][cell.task]['scores'][headline].keys() < {'value', 'interval'} or 'about' not in results:
      raise KeyError('about')
    return results
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged or of an earlier version: delete it and run the same command, which runs '
                      f'this cell again') from error


def make_score(cell: Cell, results: dict[str, Any]) -> Score:
  """The row of a finished cell, from its `scores.json`."""
  result = results['tasks'][cell.task]
  score = result['scores'][result['headline']]
  # Rounded as in the file, so that the means of the file are those of the table.
  value, low, high = (None if number is None else float(write_cell(float(number)))
                      for number in (score['value'], *(score['interval'] or (None, None))))
  return Score(cell.task, cell.init, cell.fraction, cell.seed, result['headline'], value, low, high,
               results.get('training_images', {}).get(cell.task), results.get('steps'),
               results.get('versions', {}).get('commit', ''))


def sort_scores(scores: Iterable[Score], tasks: Sequence[str], inits: Sequence[str]) -> list[Score]:
  """By task, fraction, initialisation and seed. `tasks` and `inits` have the names in their order."""
  return sorted(scores, key=lambda score: (tasks.index(score.task), score.fraction, inits.index(score.init),
                                           score.seed))


def write_csv(fields: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
  """Rows as CSV with a header. Numbers have six digits, None is an empty cell."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(fields)
  writer.writerows([write_cell(value) for value in row] for row in rows)
  return file.getvalue()


def write_cell(value: Any) -> str:
  if value is None:
    return ''
  return f'{value:.6g}' if isinstance(value, float) else str(value)


def read_rows(path: str | pathlib.Path, row: Any) -> list[Any]:
  """The rows of a CSV file that `write_csv` wrote.

  Args:
    row: a NamedTuple whose fields are the columns.

  Raises:
    ValueError: the file has other columns.
  """
  with open(path, newline='', encoding='utf-8') as file:
    header, *lines = csv.reader(file)
  if tuple(header) != row._fields:
    raise ValueError(f'{path} must have the columns {", ".join(row._fields)}, and it has {", ".join(header)}')
  types = [row.__annotations__[field] for field in row._fields]
  return [row(*(read_cell(cell, kind) for cell, kind in zip(line, types, strict=True))) for line in lines]


def read_cell(cell: str, kind: Any) -> Any:
  if kind is str:
    return cell
  if not cell:
    return None
  return int(cell) if kind in (int, int | None) else float(cell)
