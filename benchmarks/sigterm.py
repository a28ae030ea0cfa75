"""SIGTERM at random moments: is the step that was reached saved soon, and does the run end in the same bits?

    python -m benchmarks.sigterm --n=20 --seed=0

Stage 1 at smoke size (ResNet-18, batches of 32; 20 steps, no other checkpoints). The signal comes at a random time
between the first step and the last. Within 5 s the process must have ended with exit code 75, and its last line and its
newest checkpoint, with its manifest, must be of the same step; the run that is then started again must end in the bits
of an undisturbed one. One in five gets the signal before its first step, while it loads, makes its state or compiles,
and must have ended with code 75 just so, with nothing saved. About 25 s each on two idle cores.
"""

import argparse
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time

from benchmarks.support import forked
from mtpret_jax.runtime import preemption
from mtpret_jax.runtime.atomic_io import read_json_lines

LIMIT = 5.0  # s
CONFIG = 'configs/pretrain.py:smoke'
FIELDS = {'steps': 20, 'save_every': 1000, 'log_every': 1, 'probe.images': 8, 'probe.resamples': 2}
ALMOST = 16  # steps: a signal that comes later may find the run ended


def start(workdir, data):
  return forked.start(CONFIG, workdir.with_suffix('.txt'), workdir=workdir, **{'data.dir': data}, **FIELDS)


def count_steps(workdir):
  return len(read_json_lines(workdir / 'metrics.jsonl'))


def wait_for(child, ready):
  """Returns the seconds it took."""
  began = time.monotonic()
  while not child.ends() and not ready():
    time.sleep(0.002)
  return time.monotonic() - began


def try_signal(number, rng, folder, wanted, starts):
  """(s from the signal to the end, what is wrong, in words). `starts`: s that a run takes to its first step."""
  workdir, draw, early = folder / str(number), rng.random(), number % 5 == 4
  child = start(workdir, folder / 'data')
  wait_for(child, (workdir / 'run.lock').exists)
  if early:
    time.sleep(0.9 * draw * starts)
  else:
    wait_for(child, lambda: count_steps(workdir) > draw * ALMOST)
    time.sleep(rng.random() * 0.3)
  began = time.monotonic()
  child.send(signal.SIGTERM)
  code = child.wait()
  took = time.monotonic() - began
  words = [f'{took:.1f} s'] * (took > LIMIT) + [f'exit code {code}'] * (code != preemption.EXIT_CODE)
  last = workdir.with_suffix('.txt').read_text().splitlines()[-1]
  saved = [int(path.stem) for path in workdir.glob('checkpoints/*.sha256')]
  told = re.search(r'stopped by SIGTERM(?: at step (\d+) of 20, which is saved)?; the same command goes on$', last)
  if not told or saved != ([int(told[1])] if told[1] else []) or not early and not saved:
    words.append(f'last line {last!r}, saved {saved}')
  child = start(workdir, folder / 'data')
  words += [f'then ended with code {child.code}'] if child.wait() else [
    f'then differed in {names}' for names in [forked.differ(workdir, wanted)] if names]
  if not words:
    shutil.rmtree(workdir)
  return took, '; '.join(words)


def run_whole(workdir, data):
  """The seconds that it takes to the first step."""
  child = start(workdir, data)
  wait_for(child, (workdir / 'run.lock').exists)
  starts = wait_for(child, lambda: count_steps(workdir))
  if child.wait():
    raise RuntimeError(f'the undisturbed run ended with code {child.code}, see {workdir.with_suffix(".txt")}')
  return starts


def run(n, seed, folder):
  """How many of the `n` did all that they must."""
  rng, wanted, passed, times = random.Random(seed), folder / 'undisturbed', 0, []
  forked.compile_into(folder / 'compiled')
  run_whole(folder / 'first', folder / 'data')  # compiles and prepares
  starts = run_whole(wanted, folder / 'data')
  for number in range(n):
    took, wrong = try_signal(number, rng, folder, wanted, starts)
    times.append(took)
    passed += not wrong
    if wrong:
      print(f'signal {number}: {wrong}', flush=True)
  print(f'from the signal to the end: median {sorted(times)[len(times) // 2]:.1f} s, at most {max(times):.1f} s')
  return passed


def main():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.sigterm', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=20, help='signals')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--folder', help='for the runs; a temporary one without. Those that failed stay there')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    passed = run(flags.n, flags.seed, folder)
  print(f'sigterm: {passed} of {flags.n}')
  return int(passed < flags.n)


if __name__ == '__main__':
  sys.exit(main())
