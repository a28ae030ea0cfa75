"""kill -9 at random moments: does a killed run end in the same bits as one that was not killed?

    python -m benchmarks.kills --n=200 --seed=0

Half of the runs are stage 1, half stage 2, of the small size of `tests/support/small_runs.py` with 16 steps. Command
line, loop, data and checkpoints are the real ones, and stage 2 validates and keeps `best/`. Half of the kills come at
any time of a run, a quarter while a checkpoint is saved or deleted, and a quarter while the data is prepared, in a data
folder of the run's own. Each run is killed four times and started again after each kill. Then it runs to its end, and
its last state, metrics.jsonl and validation.jsonl (all but the times) must equal those of an uninterrupted run. The
kills of a run count as survived if they do.

Processes are forked from one that has imported everything, and share compiled programs. A kill takes 6 s of one core.
"""

import argparse
import collections
import functools
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.support import child_runs

STAGES = ('pretrain', 'continual')
MOMENTS = ('any time', 'saving', 'any time', 'preparing data')
KILLS = 4  # in each run, at most
FIELDS = {'pretrain': {'steps': 16, 'save_every': 2, 'probe.every': 8}, 'continual': {'rounds': 4, 'save_every': 2}}


def start(stage: str, workdir: pathlib.Path, data: pathlib.Path, workers: int) -> child_runs.Child:
  return child_runs.start(f'tests/support/small_runs.py:{stage}', workdir.with_suffix('.txt'), workdir=workdir,
                          **{'data.dir': data, 'data.workers': workers}, **FIELDS[stage])


def run_uninterrupted(stage: str, folder: pathlib.Path, workers: int) -> tuple[pathlib.Path, float, float]:
  """(workdir, seconds that a run takes once all is compiled and prepared, seconds until its data is prepared)."""
  data, began, prepared = folder / f'data_{stage}', time.monotonic(), 0.0
  child = start(stage, folder / f'{stage}_first', data, workers)
  while not child.has_ended():
    if not prepared and len(list(data.glob('*/*/*/index.csv'))) == 2:
      prepared = time.monotonic() - began
    time.sleep(0.01)
  require_success(child, folder / f'{stage}_first')
  began, workdir = time.monotonic(), folder / stage
  child = start(stage, workdir, data, workers)
  child.wait()
  require_success(child, workdir)
  return workdir, time.monotonic() - began, prepared


def require_success(child: child_runs.Child, workdir: pathlib.Path) -> None:
  if child.code:
    raise RuntimeError(f'a run ended with code {child.code}, see {workdir.with_suffix(".txt")}')


def kill(child: child_runs.Child, moment: str, draw: float, workdir: pathlib.Path, seconds: float) -> bool:
  """Kills a run at the given moment. Returns whether it still ran.

  Args:
    draw: random number of 0-1 that places the kill.
    seconds: how long the moment lasts.
  """
  until = time.monotonic() + (draw * seconds if moment != 'saving' else 600)
  while not child.has_ended() and time.monotonic() < until:
    if moment == 'saving' and list(workdir.glob('*/*.incomplete')):
      time.sleep(0.1 * draw)
      break
    time.sleep(0.001)
  child.send(signal.SIGKILL)
  return child.wait() == -signal.SIGKILL


def try_run(number: int, rng: random.Random, folder: pathlib.Path, workers: int, uninterrupted: Callable[[str], tuple],
            kills: int) -> tuple[int, str, str, str]:
  """Tries to kill one run `kills` times, lets it end and compares. Returns (kills, stage, moment, what is wrong)."""
  stage, moment = STAGES[number % 2], MOMENTS[number // 2 % len(MOMENTS)]
  wanted, seconds, seconds_of_data = uninterrupted(stage)
  own_data = moment == 'preparing data'
  workdir, data = folder / f'{number}_{stage}', folder / (f'{number}_data' if own_data else f'data_{stage}')
  killed = sum(kill(start(stage, workdir, data, workers), moment, rng.random(), workdir,
                    seconds_of_data if own_data else seconds) for _ in range(kills))
  child = start(stage, workdir, data, workers)
  child.wait()
  log = workdir.with_suffix('.txt')
  wrong = f'ended with code {child.code}, see {log}' if child.code else child_runs.find_difference(workdir, wanted)
  if not wrong:
    log.unlink()
    for path in (workdir, folder / f'{number}_data'):
      shutil.rmtree(path, ignore_errors=True)
  return killed, stage, moment, wrong


def run(n: int, seed: int, folder: pathlib.Path, workers: int) -> tuple[int, int]:
  """(kills survived, kills), of at least `n` kills."""
  rng, survived, number, began = random.Random(seed), 0, 0, time.monotonic()
  counts: collections.Counter = collections.Counter()
  child_runs.share_compiled_programs(folder / 'compiled')
  uninterrupted = functools.cache(lambda stage: run_uninterrupted(stage, folder, workers))
  while (left := n - sum(counts.values())) > 0:
    kills, stage, moment, wrong = try_run(number, rng, folder, workers, uninterrupted, min(KILLS, left))
    counts[stage, moment] += kills
    survived += kills * (not wrong)
    if wrong:
      print(f'run {number}, {stage}, killed {kills} times, {moment}: {wrong}', flush=True)
    number += 1
  for (stage, moment), count in sorted(counts.items()):
    print(f'  {stage}, {moment}: {count}')
  print(f'{number} runs in {(time.monotonic() - began) / 60:.0f} minutes')
  return survived, sum(counts.values())


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.kills', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=200, help='kills')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--workers', type=int, default=0, help='reading processes of each run')
  parser.add_argument('--folder', help='for the runs; a temporary folder by default. Runs that differ are kept')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    survived, kills = run(flags.n, flags.seed, folder, flags.workers)
  print(f'kills: {survived} of {kills}')
  return int(survived < kills)


if __name__ == '__main__':
  sys.exit(main())
