"""Whether stage 1 helped, as the terminal and the page say it, from the scores in `results.json`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtpret_jax.report.words import say_count

FEW_IMAGES = 50  # with fewer validation images the scores say little
FEW_STEPS = 100  # with fewer steps a trunk has learned next to nothing
Rows = Sequence[Mapping[str, Any]]


class Standing(NamedTuple):
  """On how many of the `datasets` the trunk is better after pretraining, with the fewest and with all labels; and on
  how many it is clearly better or worse with the fewest: the 95 % interval of the difference excludes 0."""

  datasets: int
  better: int
  better_with_all: int
  clearly_better: int
  clearly_worse: int

  @property
  def title(self) -> str:
    return 'with the fewest labels, better after pretraining on'

  @property
  def value(self) -> str:
    return f'{self.better} of {say_count(self.datasets, "dataset")}'

  @property
  def meaning(self) -> str:
    return (f'Clearly better on {self.clearly_better}, clearly worse on {self.clearly_worse} (the 95 % interval of the '
            f'difference excludes 0). With all labels, better on {self.better_with_all} of {self.datasets}')


def find_standing(rows: Rows) -> Standing:
  """`rows`: those of `evaluation.label_shares.score_shares`, at least one."""
  fewest, most = [], []
  for row in rows:
    sign = 1 if row['metric'] == 'AUROC' else -1
    shares = sorted(row['shares'], key=lambda share: share['images'])
    value, interval = shares[0]['change']
    fewest.append((sign * value, sorted(sign * end for end in interval) if interval else (0.0, 0.0)))
    most.append(sign * shares[-1]['change'][0])
  return Standing(len(rows), sum(value > 0 for value, _ in fewest), sum(value > 0 for value in most),
                  sum(low > 0 for _, (low, _) in fewest), sum(high < 0 for _, (_, high) in fewest))


def describe_check(rows: Rows, steps: int) -> str:
  """Says that a run is too small to judge, and why; '' for one that is not. `rows`: those of `probe.score_features`."""
  most = max((row['validation'] for row in rows), default=0)
  reasons = [f'it took only {say_count(steps, "step")}'] if steps < FEW_STEPS else []
  if most < FEW_IMAGES:
    reasons.append(f'no dataset has more than {say_count(most, "validation image")}')
  return (f'This run is a check of the installation, and its scores mean nothing: {" and ".join(reasons)}.'
          if rows and reasons else '')


def describe_few(rows: Rows) -> str:
  """Names the datasets with few validation images; '' without any."""
  few = [row['dataset'] for row in rows if row['validation'] < FEW_IMAGES]
  return f'{", ".join(few)}: fewer than {FEW_IMAGES} validation images, so the scores say little.' if few else ''
