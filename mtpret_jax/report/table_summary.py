"""What the table says about each initialisation: mean and standard deviation over seeds, difference to scratch, rank.

`differences.csv` has these numbers.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mtpret_jax.evaluation.paired import Difference
from mtpret_jax.report.table_cells import Score
from mtpret_jax.runtime.initial_weights import INITS, SCRATCH

Key = tuple[str, str, float]  # task, initialisation, share of the labels


class Summary(NamedTuple):
  """A row of `differences.csv`.

  `mean` and `sd` (of a sample, None with one seed) are over the `seeds` with a defined score. `difference`, with its
  95 % interval from `low` to `high`, is that to scratch; positive is better, also for errors. None where undefined.
  """

  task: str
  init: str
  fraction: float
  metric: str
  seeds: int
  mean: float | None
  sd: float | None
  difference: float | None
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True)
class Table:
  """The numbers of the table in the order in which they are shown.

  Attributes:
    metrics: {task: the name of its headline score}.
    signs: {task: -1 if a lower score is better, else 1}.
    ranks: the rank of the mean, 1 for the best, among the initialisations that have every task of this fraction.
    mean_ranks: {(init, fraction): mean of its ranks over the tasks}.
  """

  tasks: tuple[str, ...]
  inits: tuple[str, ...]
  fractions: tuple[float, ...]
  metrics: Mapping[str, str]
  signs: Mapping[str, int]
  summaries: Mapping[Key, Summary]
  ranks: Mapping[Key, float]
  mean_ranks: Mapping[tuple[str, float], float]

  def list_tasks(self, fraction: float) -> list[str]:
    """The tasks with a score at this fraction."""
    return [task for task in self.tasks if any((task, init, fraction) in self.summaries for init in self.inits)]

  def is_best(self, key: Key) -> bool:
    """Whether no other mean of the same task and fraction is better."""
    task, _, fraction = key
    means = [self.signs[task] * summary.mean for init in self.inits
             if (summary := self.summaries.get((task, init, fraction))) and summary.mean is not None]
    summary = self.summaries.get(key)
    return bool(summary and summary.mean is not None and self.signs[task] * summary.mean == max(means))


def summarise(scores: Iterable[Score], differences: Mapping[Key, Difference]) -> list[Summary]:
  """A row for each task, initialisation and fraction, in the order of `scores`."""
  groups: dict[Key, list[Score]] = {}
  for score in scores:
    groups.setdefault((score.task, score.init, score.fraction), []).append(score)
  summaries = []
  for key, group in groups.items():
    values = [score.value for score in group if score.value is not None]
    change = differences.get(key, Difference(None, None))
    low, high = change.interval or (None, None)
    summaries.append(Summary(*key, group[0].metric, len(values), statistics.fmean(values) if values else None,
                             statistics.stdev(values) if len(values) > 1 else None, change.value, low, high))
  return summaries


def make_table(summaries: Sequence[Summary], signs: Mapping[str, int]) -> Table:
  """Args:
    signs: {task: -1 if a lower score is better, else 1}.
  """
  tasks, inits = tuple(dict.fromkeys(row.task for row in summaries)), sort_inits(row.init for row in summaries)
  fractions = tuple(sorted({row.fraction for row in summaries}))
  by_key = {(row.task, row.init, row.fraction): row for row in summaries}
  ranks: dict[Key, float] = {}
  mean_ranks: dict[tuple[str, float], float] = {}
  for fraction in fractions:
    own = [task for task in tasks if any((task, init, fraction) in by_key for init in inits)]
    means = {init: [by_key[task, init, fraction].mean if (task, init, fraction) in by_key else None for task in own]
             for init in inits}
    complete = [init for init in inits if None not in means[init]]
    for place, task in enumerate(own):
      values = [signs[task] * value for init in complete if (value := means[init][place]) is not None]
      ranks |= {(task, init, fraction): rank
                for init, rank in zip(complete, rank_values(values), strict=True)}
    mean_ranks |= {(init, fraction): statistics.fmean(ranks[task, init, fraction] for task in own)
                   for init in complete}
  return Table(tasks, inits, fractions, {row.task: row.metric for row in summaries}, dict(signs), by_key, ranks,
               mean_ranks)


def sort_inits(inits: Iterable[str]) -> tuple[str, ...]:
  """Each initialisation once, in the order of the papers, others at the end."""
  return tuple(sorted(dict.fromkeys(inits), key=lambda init: INITS.index(init) if init in INITS else len(INITS)))


def rank_values(values: Sequence[float]) -> list[float]:
  """The rank of each value, 1 for the highest. Equal values share the mean of their ranks."""
  return [1 + sum(other > value for other in values) + (sum(other == value for other in values) - 1) / 2
          for value in values]


def excludes_zero(summary: Summary) -> bool:
  """Whether the interval of the difference to scratch does not contain 0."""
  return summary.low is not None and summary.high is not None and not summary.low <= 0 <= summary.high


def is_baseline(init: str) -> bool:
  return init == SCRATCH
