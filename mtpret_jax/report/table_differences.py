"""The difference of each initialisation to scratch, from the predictions of all seeds."""

import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.paired import Difference, ResampledScore, compute_difference, resample_score
from mtpret_jax.evaluation.test_scores import predictions_path
from mtpret_jax.report.table_cells import Cell
from mtpret_jax.report.table_summary import Key, is_baseline
from mtpret_jax.tasks import find_kind

log = logging.getLogger(__name__)

Finished = tuple[Cell, dict[str, Any]]  # a cell and its scores.json


def compute_differences(finished: Sequence[Finished], resamples: int) -> dict[Key, Difference]:
  """{(task, init, fraction): its difference to scratch}, over the seeds that both have. Scratch itself has none.

  It reads the predictions of all cells, one task and fraction at a time, and scores `resamples` resamples of each.
  """
  groups: dict[tuple[str, float], list[Finished]] = {}
  for cell, results in finished:
    groups.setdefault((cell.task, cell.fraction), []).append((cell, results))
  differences: dict[Key, Difference] = {}
  for number, ((task, fraction), group) in enumerate(groups.items(), 1):
    log.info('bootstrap of the table: %s, %g of the labels (%d of %d)', task, fraction, number, len(groups))
    differences |= {(task, init, fraction): change for init, change in compare_group(group, resamples)}
  return differences


def compare_group(group: Iterable[Finished], resamples: int) -> Iterator[tuple[str, Difference]]:
  """(init, difference to scratch) of cells of one task and fraction."""
  by_init: dict[str, dict[int, Finished]] = {}
  for cell, results in group:
    by_init.setdefault(cell.init, {})[cell.seed] = cell, results
  baseline = next((runs for init, runs in by_init.items() if is_baseline(init)), {})
  scored = {seed: read_cell(*run, resamples) for seed, run in baseline.items()}
  for init, runs in by_init.items():
    seeds = sorted(runs.keys() & scored.keys())
    if is_baseline(init) or not seeds:
      continue
    cell, results = runs[seeds[0]]
    own = [read_cell(*runs[seed], resamples) for seed in seeds]
    yield init, compute_difference(own, [scored[seed] for seed in seeds], sign=results['tasks'][cell.task]['sign'])


def read_cell(cell: Cell, results: Mapping[str, Any], resamples: int) -> ResampledScore:
  return read_scores(cell.config.workdir, cell.task, results, resamples)


def read_scores(workdir: str, task: str, results: Mapping[str, Any], resamples: int) -> ResampledScore:
  """The score of a run of stage 3 and of its resamples, from `predictions_<task>.csv`.

  Raises:
    ConfigError: the predictions cannot be read.
  """
  path = predictions_path(pathlib.Path(workdir), task)
  kind, about = find_kind(results['tasks'][task]['task']).metrics, results['about'][task]
  try:
    rows = metrics.read_predictions(path, kind, about)
  except (OSError, ValueError) as error:
    raise ConfigError(f'{path} is damaged ({error}): delete scores.json in {workdir} and run the same '
                      f'command, which scores this cell again') from error
  return resample_score(workdir, kind, about, rows, resamples=resamples)
