"""How much the runs of stage 2 forget from round to round, as means over seeds; `forgetting.csv`."""

import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.rounds import compute_forgetting_by_round
from mtpret_jax.report.table_cells import Cell
from mtpret_jax.report.tables import align
from mtpret_jax.report.words import describe_forgetting as describe_loss

FILE = 'rounds.json'


class Forgetting(NamedTuple):
  """A row of `forgetting.csv`. `forgetting`: best earlier validation score minus the one after this round, mean over
  the `seeds` for which it is defined; `sd` is None with one seed. In the sequential order a round is a visit."""

  init: str
  fraction: float
  task: str
  round: int
  seeds: int
  forgetting: float
  sd: float | None


def measure_forgetting(cells: Iterable[Cell]) -> list[Forgetting]:
  """The rows of the runs of stage 2 that the cells start from, as far as these are finished.

  Raises:
    ConfigError: the rounds of a run are damaged.
  """
  runs = dict.fromkeys((cell.init, cell.fraction, cell.config.init_from) for cell in cells if cell.config.init_from)
  values: dict[tuple[str, float, str, int], list[float]] = {}
  for init, fraction, run in runs:
    path = pathlib.Path(run, FILE)
    if not path.is_file():  # a run of stage 1, a weights file, or not finished
      continue
    try:
      rounds = json.loads(path.read_text(encoding='utf-8'))
      measured = compute_forgetting_by_round(rounds['rounds'], list(rounds['tasks']), rounds['order'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise ConfigError(f'{path} is damaged or of an earlier version: delete it and run the same command, which '
                        f'writes it again') from error
    for task, by_round in measured.items():
      for number, value in enumerate(by_round, 1):
        if value is not None:
          values.setdefault((init, fraction, task, number), []).append(value)
  return [Forgetting(*key, len(seeds), statistics.fmean(seeds), statistics.stdev(seeds) if len(seeds) > 1 else None)
          for key, seeds in values.items()]


def tabulate_forgetting(rows: Sequence[Forgetting]) -> list[tuple[str, ...]]:
  """A header and a row for each share of the labels and initialisation: what each task lost until the last round."""
  tasks = list(dict.fromkeys(row.task for row in rows))
  last = {(row.fraction, row.init, row.task): row for row in sorted(rows, key=lambda row: row.round)}
  table: list[tuple[str, ...]] = [('labels', 'init', *tasks)]
  for fraction, init in sorted(dict.fromkeys((row.fraction, row.init) for row in rows), key=lambda key: key[0]):
    table.append((f'{100 * fraction:g} %', init, *(describe_loss(last[key].forgetting if key in last else None)
                                                   for key in ((fraction, init, task) for task in tasks))))
  return table


def describe_forgetting(rows: Sequence[Forgetting]) -> list[str]:
  """Lines with the forgetting of each task after the last round; [] without runs of stage 2."""
  if not rows:
    return []
  return ['What stage 2 forgot or gained: the last validation score of a task against its best earlier one, mean over '
          'seeds. forgetting.csv has every round.', *align(tabulate_forgetting(rows))]
