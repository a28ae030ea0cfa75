"""Reads the files of a run for its page. What is missing or damaged becomes a problem that the page lists.

Nothing here needs jax, the checkpoints or the prepared data.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtpret_jax.evaluation import metrics
from mtpret_jax.runtime.atomic_io import read_json_lines
from mtpret_jax.tasks import KINDS

TABLE, RECIPE, PRETRAIN, CONTINUAL, SCORES = 'table', 'recipe', 'pretrain', 'continual', 'scores'
CONFIG, SCORES_FILE, RESULTS, ROUNDS = 'config.json', 'scores.json', 'results.json', 'rounds.json'
CELLS, OPERATING_POINTS, REPORT = 'cells.csv', 'operating_points.json', 'report.html'
CELL_FOLDERS = 'cells/*/*/*/*'  # in the workdir of a table: <task>/<init>/<share of the labels>/<seed>
MOST_MATCHED = 20_000  # images; matching the boxes of more would take a minute
LARGEST = 200 * 10**6  # bytes of a file that is read
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, ArithmeticError)


class NotARun(ValueError):
  """The folder holds none of the files of a run."""


@dataclasses.dataclass
class RunFiles:
  """The folder of a run and what is wrong with its files.

  Attributes:
    kind: TABLE, RECIPE, PRETRAIN, CONTINUAL or SCORES (stage 3, or an evaluation).
    config: of the run; {} where it is missing.
    problems: sentences for the page.
  """

  folder: pathlib.Path
  kind: str = ''
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  problems: list[str] = dataclasses.field(default_factory=list)

  def has(self, name: str) -> bool:
    return (self.folder / name).is_file()  # not a pipe, which might never end

  def read_json(self, name: str) -> dict[str, Any]:
    """The object in a file of JSON; {} where there is none, with a problem if the file is damaged."""
    path = self.folder / name
    if not path.is_file():
      return {}
    try:
      if path.stat().st_size > LARGEST:
        raise ValueError('it is too large')
      content = json.loads(path.read_text(encoding='utf-8'))
      if not isinstance(content, dict):
        raise ValueError('it holds no object')
      return content
    except DAMAGED as error:
      self.problems.append(f'{name} is damaged ({error}), so what it holds is missing here.')
      return {}

  def read_lines(self, name: str) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, without damaged ones."""
    try:
      return read_json_lines(self.folder / name)
    except DAMAGED as error:
      self.problems.append(f'{name} is damaged ({error}), so what it holds is missing here.')
      return []

  def read_rows(self, task: str, result: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The predictions of a task with their truth, as `metrics.score` prepares them; None where they cannot be read.
    Boxes are those of at most MOST_MATCHED images, evenly chosen."""
    path = self.folder / f'predictions_{task}.csv'
    if result['task'] not in KINDS:
      return None
    if not path.is_file():
      self.problems.append(f'{path.name} is not there, so the plots of predictions are missing.')
      return None
    kind = KINDS[result['task']].metrics
    try:
      rows = metrics.read_predictions(path, kind, about)
      if kind.ragged and len(rows['patient']) > MOST_MATCHED:
        chosen = np.linspace(0, len(rows['patient']) - 1, MOST_MATCHED).round().astype(int)
        rows = {name: values[chosen] for name, values in rows.items()}
      return dict(kind.prepare(about, rows))
    except DAMAGED as error:
      self.problems.append(f'{path.name} is damaged ({error}), so the plots of predictions are missing.')
      return None

  def read_operating_points(self, task: str) -> dict[str, Any]:
    """What was chosen for a task on validation; {} for nothing. An evaluation's folder lies in that of the run."""
    folder = self.folder if self.has(OPERATING_POINTS) else self.folder.parent
    chosen = RunFiles(folder, problems=self.problems).read_json(OPERATING_POINTS).get(task)
    return chosen if isinstance(chosen, dict) else {}


def open_run(folder: str | pathlib.Path) -> RunFiles:
  """The files of a run of any kind.

  Raises:
    NotARun: the folder is not there, or has no file of a run.
  """
  run = RunFiles(pathlib.Path(folder))
  if not run.folder.is_dir():
    raise NotARun(f'{folder} is not a folder: name the workdir of a run')
  scores = run.read_json(SCORES_FILE)
  saved = run.read_json(CONFIG).get('config') or scores.get('config') or run.read_json(RESULTS).get('config')
  if isinstance(saved, dict) and is_config(saved):
    run.config = saved
  run.kind = find_kind(run, scores)
  if run.kind in (PRETRAIN, CONTINUAL, SCORES) and not run.config:
    run.problems.append('The config is missing: config.json is not there or damaged.')
  return run


def is_config(fields: Mapping[str, Any]) -> bool:
  """Whether what was read from a file has the shape of a stage's config."""
  return (isinstance(fields.get('data'), dict)
          and isinstance(fields['data'].get('datasets', []), list) and isinstance(fields.get('tasks', {}), dict)
          and isinstance(fields.get('name', ''), str))


def find_kind(run: RunFiles, scores: Mapping[str, Any]) -> str:
  """Which kind of run wrote the files. Raises NotARun."""
  if run.has(CELLS):
    return TABLE
  if run.config.get('objective') == 'moco' or run.has(RESULTS):
    return PRETRAIN
  if isinstance(scores.get('tasks'), dict):
    return SCORES
  if run.has(ROUNDS) or len(run.config.get('tasks') or ()) > 1:
    return CONTINUAL
  if run.config.get('objective') == 'multitask':
    return SCORES
  if list_stages(run.folder):
    return RECIPE
  if run.has(SCORES_FILE) or run.has(CONFIG):
    return SCORES
  if has_runs_of_table(run.folder):
    finished = len(list(run.folder.glob(f'{CELL_FOLDERS}/{SCORES_FILE}')))
    raise NotARun(f'{run.folder} is the workdir of a table that has no {CELLS} yet (finished cells: {finished}). The '
                  f'table writes it at its end: wait for it, or run the same table command again if it was stopped')
  raise NotARun(f'{run.folder} is not the workdir of a run: it has none of {CONFIG}, {SCORES_FILE}, {RESULTS}, '
                f'{ROUNDS} and {CELLS}')


def has_runs_of_table(folder: pathlib.Path) -> bool:
  """Whether the folder holds a cell or a pretraining run of a table."""
  return any(any(folder.glob(f'{runs}/{CONFIG}')) for runs in (CELL_FOLDERS, 'pretraining/*moco/**'))


def list_stages(folder: pathlib.Path) -> list[pathlib.Path]:
  """The workdirs of a recipe's stages."""
  return [path.parent for path in sorted(folder.glob(f'*/{CONFIG}')) if path.is_file()]
