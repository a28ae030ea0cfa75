"""A long run must not grow: memory, open files and threads of stage 1 at smoke size, read from outside.

    python -m benchmarks.soak --minutes=60 --folder=DIR
    python -m benchmarks.soak --again=DIR/samples.csv       judges the samples of an earlier soak

Runs `configs/pretrain.py:smoke` (ResNet-18, batches of 32, a checkpoint every 200 steps, two of them kept) in a child
process and reads /proc every ten seconds. Linux only. A save holds 350 MB, 15 files and 15 threads for a moment, and
whether a sample falls into a save is chance. So the smallest value of every two minutes is judged, which is what the
process holds at rest. Time in which everything stood still (SIGSTOP, a machine that slept) is left out: its windows
would hold one sample each. The first fifth of the time is warm-up. After it, memory must rise by less than 1 MB per
1,000 steps (least squares), and there must be no more files and threads at the end than at the beginning.
"""

import argparse
import os
import pathlib
import signal
import sys
import tempfile
import time

import numpy as np

from benchmarks.support import child_runs
from mtpret_jax.cpu import malloc
from mtpret_jax.runtime import preemption
from mtpret_jax.runtime.atomic_io import read_json_lines

INTERVAL = 10      # s between samples
WINDOW = 120       # s, of which the smallest value counts
WARM_UP = 0.2      # share of the time
MAX_GROWTH = 1.0   # MB per 1,000 steps


def measure(pid: int) -> tuple[float, int, int]:
  """(resident MB, open files, threads) of a process."""
  status = dict(line.split(':', 1) for line in pathlib.Path(f'/proc/{pid}/status').read_text().splitlines())
  return int(status['VmRSS'].split()[0]) / 1024, len(os.listdir(f'/proc/{pid}/fd')), int(status['Threads'])


def read_step(workdir: pathlib.Path) -> int:
  lines = read_json_lines(workdir / 'metrics.jsonl')
  return lines[-1]['step'] if lines else 0


def soak(folder: pathlib.Path, minutes: float, interval: float = INTERVAL) -> np.ndarray:
  """Samples of a run, counted from its first steps: rows of (s, step, MB, files, threads)."""
  workdir = folder / 'run'
  child = child_runs.start('configs/pretrain.py:smoke', folder / 'log.txt', workdir=workdir, **{
    'data.dir': folder / 'data', 'steps': 10 ** 7, 'save_every': 200, 'log_every': 20})
  samples, now = [], 0.0
  try:
    while not read_step(workdir):
      if child.has_ended():
        raise RuntimeError(f'the run ended before its first step, see {folder / "log.txt"}')
      time.sleep(1)
    with open(folder / 'samples.csv', 'w', encoding='utf-8') as file:
      while now < 60 * minutes:
        samples.append((round(now, 1), read_step(workdir), *measure(child.pid)))
        print(*samples[-1], sep=',', file=file, flush=True)
        began = time.monotonic()
        time.sleep(interval)
        now += min(time.monotonic() - began, 2 * interval)
  finally:
    child.send(signal.SIGTERM)
    child.wait()
  if child.code != preemption.EXIT_CODE:
    raise RuntimeError(f'the run ended with code {child.code} instead of {preemption.EXIT_CODE}, see '
                       f'{folder / "log.txt"}')
  return np.array(samples)


def judge(samples: np.ndarray, warm_up: float = WARM_UP, window: float = WINDOW) -> int:
  """Prints the results. Returns how many of the three rules hold."""
  kept = samples[samples[:, 0] >= warm_up * samples[-1, 0]]
  windows = (kept[:, 0] - kept[0, 0]) // window
  rest = np.array([np.append(part[:, 1].mean(), part[:, 2:].min(0)) for part in (
    kept[windows == number] for number in np.unique(windows)[:max(2, int(kept[-1, 0] - kept[0, 0]) // int(window))])])
  steps, memory, files, threads = rest.T
  slope, error = fit(steps / 1000, memory)
  rules = [('memory at rest', f'{slope:+.2f} MB per 1,000 steps, standard error {error:.2f}', slope < MAX_GROWTH)]
  for name, column in (('open files', files), ('threads', threads)):
    ends = max(1, len(column) // 10)
    first, last = column[:ends].min(), column[-ends:].min()
    rules.append((name, f'{first:.0f} after the warm-up, {last:.0f} at the end', last <= first))
  print(f'{kept[-1, 1] - kept[0, 1]:.0f} steps in {(kept[-1, 0] - kept[0, 0]) / 60:.0f} minutes after the warm-up; at '
        f'rest {memory.min():.0f} to {memory.max():.0f} MB, with saves up to {kept[:, 2].max():.0f} MB')
  for name, words, holds in rules:
    print(f'  {name}: {words}{"" if holds else "  TOO MUCH"}')
  return sum(bool(holds) for *_, holds in rules)


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """Least squares: (slope, its standard error)."""
  slope, intercept = np.polyfit(x, y, 1)
  variance = np.sum((y - slope * x - intercept) ** 2) / max(1, len(x) - 2)
  return slope, np.sqrt(variance / np.sum((x - x.mean()) ** 2))


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.soak', description=__doc__.split('\n')[0])
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--folder', help='for the run and samples.csv; a temporary folder by default')
  parser.add_argument('--again', help='samples.csv of an earlier soak, to be judged')
  flags = parser.parse_args()
  if flags.again:
    held = judge(np.loadtxt(flags.again, delimiter=','))
  else:
    malloc.restart_with_tunables()  # as mtpret_jax.main does
    with tempfile.TemporaryDirectory() as temporary:
      folder = pathlib.Path(flags.folder or temporary).absolute()
      folder.mkdir(parents=True, exist_ok=True)
      held = judge(soak(folder, flags.minutes))
  print(f'soak: {held} of 3')
  return int(held < 3)


if __name__ == '__main__':
  sys.exit(main())
