"""kill -9 at random moments: does a run that was killed end in the same bits as one that was not?

    python -m benchmarks.kills --n=200 --seed=0

Half of the runs are stage 1, half stage 2, tiny (`support/tiny.py`: one block, two datasets, 16 steps; stage 2 with
validation and `best/` in the pauses), but with the real command line, loop, data and checkpoints. Half of the kills
come at any time between the start and the end of an undisturbed run, a quarter while a checkpoint is being saved or
deleted, and a quarter while the data is being made: these runs have a data folder of their own, with nothing in it. A
run is killed four times, and each time started again to go on where it can; then it is left to its end. Its last state,
metrics.jsonl and validation.jsonl (all but the times) must be those of the undisturbed run. A kill counts as survived
where its run passes all of this.

Processes are forked from one that has imported everything, and read back what was compiled before: 6 s of one
core for a kill.
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

from benchmarks.support import forked

STAGES = ('pretrain', 'continual')
MOMENTS = ('any time', 'saving', 'any time', 'making data')
KILLS = 4  # of a run
SIZE = {'pretrain': {'steps': 16, 'save_every': 2}, 'continual': {'rounds': 4, 'save_every': 2}}


def start(stage, workdir, data, workers):
  return forked.start(f'benchmarks/support/tiny.py:{stage}', workdir.with_suffix('.txt'), workdir=workdir,
                      **{'data.dir': data, 'data.workers': workers}, **SIZE[stage])


def run_undisturbed(stage, folder, workers):
  """(workdir, s it takes when all is compiled and prepared, s that its data takes to make)."""
  data, began, made = folder / f'data_{stage}', time.monotonic(), None
  child = start(stage, folder / f'{stage}_first', data, workers)
  while not child.ends():
    if made is None and len(list(data.glob('*/*/*/index.csv'))) == 2:
      made = time.monotonic() - began
    time.sleep(0.01)
  expect(child, folder / f'{stage}_first')
  began, workdir = time.monotonic(), folder / stage
  child = start(stage, workdir, data, workers)
  child.wait()
  expect(child, workdir)
  return workdir, time.monotonic() - began, made


def expect(child, workdir):
  if child.code:
    raise RuntimeError(f'a run ended with code {child.code}, see {workdir.with_suffix(".txt")}')


def kill(child, moment, draw, workdir, seconds):
  """Ends the child at the moment; `draw` is a random number of 0-1, `seconds` how long the moment may last. Returns
  whether it was there to be killed."""
  until = time.monotonic() + (draw * seconds if moment != 'saving' else 600)
  while not child.ends() and time.monotonic() < until:
    if moment == 'saving' and list(workdir.glob('*/*.incomplete')):
      time.sleep(0.1 * draw)
      break
    time.sleep(0.001)
  child.send(signal.SIGKILL)
  return child.wait() == -signal.SIGKILL


def try_run(number, rng, folder, workers, undisturbed):
  """Kills one run, lets it end, compares. Returns (kills, stage, moment, what is wrong, in words)."""
  stage, moment = STAGES[number % 2], MOMENTS[number // 2 % len(MOMENTS)]
  wanted, whole, made = undisturbed(stage)
  own = moment == 'making data'
  workdir, data, kills = folder / f'{number}_{stage}', folder / (f'{number}_data' if own else f'data_{stage}'), 0
  for _ in range(KILLS):
    kills += kill(start(stage, workdir, data, workers), moment, rng.random(), workdir, made if own else whole)
  child = start(stage, workdir, data, workers)
  child.wait()
  log = workdir.with_suffix('.txt')
  wrong = f'ended with code {child.code}, see {log}' if child.code else forked.differ(workdir, wanted)
  if not wrong:
    log.unlink()
    for path in (workdir, folder / f'{number}_data'):
      shutil.rmtree(path, ignore_errors=True)
  return kills, stage, moment, wrong


def run(n, seed, folder, workers):
  """The number of kills survived, of at least `n`, and how many there were."""
  rng, counts, survived, began = random.Random(seed), collections.Counter(), 0, time.monotonic()
  forked.compile_into(folder / 'compiled')
  undisturbed = functools.cache(lambda stage: run_undisturbed(stage, folder, workers))
  number = 0
  while sum(counts.values()) < n:
    kills, stage, moment, wrong = try_run(number, rng, folder, workers, undisturbed)
    counts[stage, moment] += kills
    survived += kills * (not wrong)
    if wrong:
      print(f'run {number}, {stage}, killed {kills} times, {moment}: {wrong}', flush=True)
    number += 1
  for (stage, moment), count in sorted(counts.items()):
    print(f'  {stage}, {moment}: {count}')
  print(f'{number} runs in {(time.monotonic() - began) / 60:.0f} minutes')
  return survived, sum(counts.values())


def main():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.kills', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=200, help='kills')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--workers', type=int, default=0, help='processes that read, of each run')
  parser.add_argument('--folder', help='for the runs; a temporary one without. Those that differ stay there')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    survived, kills = run(flags.n, flags.seed, folder, flags.workers)
  print(f'kills: {survived} of {kills}')
  return int(survived < kills)


if __name__ == '__main__':
  sys.exit(main())
