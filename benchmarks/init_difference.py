"""The difference between two initialisations of a table, with the interval that the table has for those to scratch.

    python -m benchmarks.init_difference runs/real_small pneumonia 0.01 md_moco moco
"""

import argparse
import json
import pathlib

from mtpret_jax.evaluation.paired import ResampledScore, compute_difference
from mtpret_jax.report.table_differences import read_scores

Runs = dict[str, tuple[ResampledScore, int]]


def read_runs(folder: pathlib.Path, task: str, resamples: int) -> Runs:
  """{seed: (score of the finished cell in this folder, 1 if higher is better or -1)}."""
  found = {}
  for path in folder.glob('*/scores.json'):
    results = json.loads(path.read_text(encoding='utf-8'))
    found[path.parent.name] = (read_scores(str(path.parent), task, results, resamples), results['tasks'][task]['sign'])
  return found


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('workdir', type=pathlib.Path, help='of the table')
  parser.add_argument('task')
  parser.add_argument('fraction', type=float, help='share of the labels, such as 0.01')
  parser.add_argument('init')
  parser.add_argument('baseline', help='the initialisation that is subtracted')
  parser.add_argument('--resamples', type=int, default=1000)
  given = parser.parse_args(arguments)
  own, other = (read_runs(given.workdir / 'cells' / given.task / init / f'{given.fraction:g}', given.task,
                          given.resamples) for init in (given.init, given.baseline))
  seeds = sorted(own.keys() & other.keys())
  if not seeds:
    parser.error(f'{given.workdir} has no seed with finished cells of both {given.init} and {given.baseline}')
  change = compute_difference([own[seed][0] for seed in seeds], [other[seed][0] for seed in seeds],
                              sign=own[seeds[0]][1])
  interval = ' to '.join(f'{end:.3f}' for end in change.interval or ())
  print(f'{given.init} over {given.baseline} on {given.task}: {change.value:.3f} ({interval}), {len(seeds)} seeds')
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
