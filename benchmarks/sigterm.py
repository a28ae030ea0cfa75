"""SIGTERM at random moments: is the current step saved within seconds, and does the run end in the same bits?

    python -m benchmarks.sigterm --n=20 --seed=0

Stage 1 at smoke size (ResNet-18, batches of 32, 20 steps, no other checkpoints). The signal comes at a random time
between the first step and the last. Within 5 s the process must exit with code 75, and its last line must name the
step of its newest checkpoint. The run is then started again and must end in the bits of an uninterrupted run. One in
five gets the signal before its first step, while it imports, makes its state or compiles. It must exit with code 75
too, with nothing saved. Takes about 25 s per signal on two idle cores.
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
from collections.abc import Callable

from benchmarks.support import child_runs
from mtpret_jax.runtime import preemption
from mtpret_jax.runtime.atomic_io import read_json_lines

LIMIT = 5.0  # s
CONFIG = 'configs/pretrain.py:smoke'
FIELDS = {'steps': 20, 'save_every': 1000, 'log_every': 1, 'probe.images': 8, 'probe.resamples': 2}
LAST_STEP = 16  # a signal that comes after it may find that the run has ended
LAST_LINE = re.compile(r'stopped by SIGTERM(?: at step (\d+) of 20, which is saved)?; run the same command to resume$')


def start(workdir: pathlib.Path, data: pathlib.Path) -> child_runs.Child:
  return child_runs.start(CONFIG, workdir.with_suffix('.txt'), workdir=workdir, **{'data.dir': data}, **FIELDS)


def count_steps(workdir: pathlib.Path) -> int:
  return len(read_json_lines(workdir / 'metrics.jsonl'))


def wait_for(child: child_runs.Child, is_ready: Callable[[], object]) -> float:
  """Waits until `is_ready()` or the child ends. Returns the seconds it took."""
  began = time.monotonic()
  while not child.has_ended() and not is_ready():
    time.sleep(0.002)
  return time.monotonic() - began


def try_signal(number: int, rng: random.Random, folder: pathlib.Path, wanted: pathlib.Path,
               seconds_to_start: float) -> tuple[float, str]:
  """Returns (seconds from the signal to the end, what is wrong)."""
  workdir, draw, early = folder / str(number), rng.random(), number % 5 == 4
  child = start(workdir, folder / 'data')
  wait_for(child, (workdir / 'run.lock').exists)
  if early:
    time.sleep(0.9 * draw * seconds_to_start)
  else:
    wait_for(child, lambda: count_steps(workdir) > draw * LAST_STEP)
    time.sleep(rng.random() * 0.3)
  began = time.monotonic()
  child.send(signal.SIGTERM)
  code = child.wait()
  seconds = time.monotonic() - began
  wrong = [f'{seconds:.1f} s'] * (seconds > LIMIT) + [f'exit code {code}'] * (code != preemption.EXIT_CODE)
  last_line = workdir.with_suffix('.txt').read_text().splitlines()[-1]
  saved = [int(path.stem) for path in workdir.glob('checkpoints/*.sha256')]
  match = LAST_LINE.search(last_line)
  if not match or saved != ([int(match[1])] if match[1] else []) or not early and not saved:
    wrong.append(f'last line {last_line!r}, saved {saved}')
  child = start(workdir, folder / 'data')
  if child.wait():
    wrong.append(f'the resumed run ended with code {child.code}')
  elif names := child_runs.find_difference(workdir, wanted):
    wrong.append(f'the resumed run differs in {names}')
  if not wrong:
    shutil.rmtree(workdir)
  return seconds, '; '.join(wrong)


def run_uninterrupted(workdir: pathlib.Path, data: pathlib.Path) -> float:
  """Returns the seconds from the lock to the first step."""
  child = start(workdir, data)
  wait_for(child, (workdir / 'run.lock').exists)
  seconds = wait_for(child, lambda: count_steps(workdir))
  if child.wait():
    raise RuntimeError(f'the uninterrupted run ended with code {child.code}, see {workdir.with_suffix(".txt")}')
  return seconds


def run(n: int, seed: int, folder: pathlib.Path) -> int:
  """How many of `n` signals were handled right."""
  rng, wanted, passed, times = random.Random(seed), folder / 'uninterrupted', 0, []
  child_runs.share_compiled_programs(folder / 'compiled')
  run_uninterrupted(folder / 'first', folder / 'data')  # compiles and prepares
  seconds_to_start = run_uninterrupted(wanted, folder / 'data')
  for number in range(n):
    seconds, wrong = try_signal(number, rng, folder, wanted, seconds_to_start)
    times.append(seconds)
    passed += not wrong
    if wrong:
      print(f'signal {number}: {wrong}', flush=True)
  print(f'from the signal to the end: median {sorted(times)[len(times) // 2]:.1f} s, at most {max(times):.1f} s')
  return passed


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.sigterm', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=20, help='signals')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--folder', help='for the runs; a temporary folder by default. Runs that failed are kept')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    passed = run(flags.n, flags.seed, folder)
  print(f'sigterm: {passed} of {flags.n}')
  return int(passed < flags.n)


if __name__ == '__main__':
  sys.exit(main())
