"""Stage 2 with cross-task memory of several strengths, on real radiographs of two body parts.

    python -m benchmarks.memory_sweep --archives=DIR --folder=runs/memory_sweep
    python -m benchmarks.memory_sweep --archives=DIR --folder=runs/memory_sweep --seeds 1 2 3 --strengths 0 0.01 0.3

DIR holds the archives kermany_pneumonia and knee_oa. The tasks are bacterial and viral pneumonia (AUC) and the grade of
osteoarthritis of a knee (quadratic kappa), with ResNet-18 at 48 px. First both tasks train a trunk together, without
memory. Every run of stage 2 begins with this trunk and new heads; with --scratch it begins with random weights. At
strength 0 nothing is pulled, and the drift is measured all the same.

Each finished run adds a line to FOLDER/memory_sweep.csv, and the same command skips the runs that have one. A run takes
two to four minutes on one core. The table has the mean of each optimiser and strength over the seeds and, for several
seeds, the standard deviation.
"""

import argparse
import csv
import itertools
import logging
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import common, continual, tasks
from mtpret_jax.cpu import malloc
from mtpret_jax.runtime.atomic_io import read_json_lines

TASKS = ('pneumonia', 'knee')
OPTIMISERS = {'adamw': dict(kind='adamw', learning_rate=1e-3),  # as in the small configs
              'sgd': dict(kind='sgd', learning_rate=0.01)}      # as at full scale
KEYS = ('optimiser', 'l2_sp', 'seed')
START_SEED = 100  # of the run that makes the first trunk; no run of the sweep uses it
SIZE = 48         # px, side of a view

Row = Mapping[str, str]


def make_config(options: argparse.Namespace, name: str, steps: int, **fields: Any) -> ConfigDict:
  """Stage 2 on both tasks; its workdir is FOLDER/`name`."""
  config = continual.base()
  config.tasks = tasks.embedded(TASKS, steps=steps)
  config.tasks.pneumonia.findings = ('bacteria', 'virus')  # pneumonia against normal is too easy to show a difference
  for task_config in config.tasks.values():
    task_config.update(size=round(SIZE * 1.15), augment=common.labelled_augment(SIZE))
  config.update(workdir=str(pathlib.Path(options.folder, name)), resamples=10, **fields)
  config.data.update(archives=options.archives, dir=str(pathlib.Path(options.folder, 'data')), threads=2)
  return config


def make_start_config(options: argparse.Namespace) -> ConfigDict:
  config = make_config(options, 'start', options.start_steps, seed=START_SEED, order='joint', rounds=1)
  config.memory.anchor = 'none'
  config.optimiser.warmup = 0.05
  return config


def make_sweep_config(options: argparse.Namespace, optimiser: str, strength: float, seed: int) -> ConfigDict:
  config = make_config(options, f'{optimiser}-{strength:g}-{seed}', options.steps, seed=seed, rounds=options.rounds,
                       log_every=1)
  if not options.scratch:
    config.update(init='other', init_from=make_start_config(options).workdir)
  config.memory.l2_sp = strength
  config.optimiser.update(warmup=1 / 6, **OPTIMISERS[optimiser])
  return config


def run(config: ConfigDict) -> None:
  import jax

  from mtpret_jax import cli, stages
  from mtpret_jax.evaluation import test_scores
  if not test_scores.is_finished(config):
    cli.set_up_cpu(config, single_process=True)
    stages.run(config)
    jax.clear_caches()  # the next run compiles its own steps


def measure(config: ConfigDict) -> dict[str, float]:
  """The columns of a finished run. A drift is that of the last step of a visit, the ratio is over all steps."""
  from mtpret_jax.evaluation import rounds, validation
  from mtpret_jax.runtime.logging import METRICS
  lines = validation.read(config.workdir)
  ends = [line['step'] for line in lines]
  visits = [visit for visits in rounds.summarise_memory(
    read_json_lines(pathlib.Path(config.workdir, METRICS)), ends).values() for visit in visits]
  row: dict[str, Any] = {name: float(np.mean([visit[name] for visit in visits])) for name in ('drift', 'pull_ratio')}
  changes = rounds.compute_forgetting(lines, list(config.tasks), config.order)
  for name in config.tasks:
    scores = [line['tasks'][name]['value'] for line in lines]
    row |= {f'{name} last': scores[-1], f'{name} best': max(scores), f'{name} mean': float(np.mean(scores)),
            **{f'{name} {measure}': value for measure, value in changes[name].items()}}
  return row


def read_rows(path: pathlib.Path) -> list[Row]:
  if not path.exists():
    return []
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def write_rows(path: pathlib.Path, rows: Sequence[Row]) -> None:
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def sweep(options: argparse.Namespace, path: pathlib.Path) -> None:
  """Runs what `path` has no line of."""
  from mtpret_jax.runtime import compilation_cache
  compilation_cache.enable_cache()
  if not options.scratch:
    run(make_start_config(options))
  for seed, optimiser, strength in itertools.product(options.seeds, options.optimisers, options.strengths):
    rows = read_rows(path)
    keys = dict(zip(KEYS, (optimiser, f'{strength:g}', str(seed)), strict=True))
    if any(keys.items() <= row.items() for row in rows):
      continue
    config = make_sweep_config(options, optimiser, strength, seed)
    run(config)
    write_rows(path, [*rows, keys | {name: f'{value:.5g}' for name, value in measure(config).items()}])
    shutil.rmtree(pathlib.Path(config.workdir, 'checkpoints'))  # 180 MB


def describe(rows: Sequence[Row], seeds: Sequence[int]) -> str:
  """A Markdown table: a line for each optimiser and strength, the mean over `seeds` and, of several, the deviation."""
  rows = [row for row in rows if int(row['seed']) in seeds]
  columns = [name for name in rows[0] if name not in KEYS] if rows else []
  lines = ['| ' + ' | '.join(['optimiser', 'l2_sp', *columns]) + ' |', '|---' * (2 + len(columns)) + '|']
  for optimiser, strength in sorted({(row['optimiser'], float(row['l2_sp'])) for row in rows}):
    group = [row for row in rows if row['optimiser'] == optimiser and float(row['l2_sp']) == strength]
    values = np.array([[float(row[name]) for name in columns] for row in group])
    cells = [f'{mean:.3f}' + (f' ± {deviation:.3f}' if len(group) > 1 else '')
             for mean, deviation in zip(values.mean(0), values.std(0, ddof=min(len(group) - 1, 1)), strict=True)]
    lines.append('| ' + ' | '.join([optimiser, f'{strength:g}', *cells]) + ' |')
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--archives', required=True, help='folder of the two archives')
  parser.add_argument('--folder', required=True, help='for prepared data, runs and the table')
  parser.add_argument('--scratch', action='store_true', help='begin with random weights; needs a folder of its own')
  parser.add_argument('--seeds', type=int, nargs='+', default=[0])
  parser.add_argument('--strengths', type=float, nargs='+', default=[0, 0.01, 0.03, 0.1, 0.3, 1, 3])
  parser.add_argument('--optimisers', nargs='+', default=list(OPTIMISERS), choices=list(OPTIMISERS))
  parser.add_argument('--rounds', type=int, default=4)
  parser.add_argument('--steps', type=int, default=30, help='steps of each visit')
  parser.add_argument('--start_steps', type=int, default=400, help='steps that train the first trunk')
  options = parser.parse_args()
  malloc.restart_with_tunables()  # as mtpret_jax.main does
  logging.basicConfig()
  logging.getLogger('mtpret_jax').setLevel(logging.INFO)
  path = pathlib.Path(options.folder, 'memory_sweep.csv')
  sweep(options, path)
  print(describe(read_rows(path), options.seeds))


if __name__ == '__main__':
  main()
