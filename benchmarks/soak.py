"""A long run that must not grow: stage 1 at smoke size, its memory, open files and threads watched from outside.

    python -m benchmarks.soak --minutes=60 --folder=DIR
    python -m benchmarks.soak --again=DIR/samples.csv       judges a soak that was

runs `configs/pretrain.py:smoke` (ResNet-18, batches of 32; a checkpoint every 200 steps, of which two are kept) in a
process of its own and reads /proc every ten seconds; Linux only. A save holds 350 MB, 15 files and 15 threads for a
moment, and where such moments fall among the samples is chance: what is judged is the least of every two minutes, which
is what the process holds at rest. Time in which everything was stopped (SIGSTOP, a machine that slept) does not count:
its windows would be single samples, some of them within a save. The first fifth of the time is warm-up. After it memory
must rise by less than 1 MB per 1,000 steps (least squares), files and threads must not be more at the end than at its
beginning.
"""

import argparse
import os
import pathlib
import signal
import sys
import tempfile
import time

import numpy as np

from benchmarks.support import forked
from mtpret_jax.cpu import malloc
from mtpret_jax.runtime import preemption
from mtpret_jax.runtime.atomic_io import read_json_lines

EVERY, REST, WARM, LIMIT = 10, 120, 0.2, 1.0  # s; s; share of the time; MB per 1,000 steps


def measure(process):
  """(resident MB, open files, threads) of a process."""
  status = dict(line.split(':', 1) for line in pathlib.Path(f'/proc/{process}/status').read_text().splitlines())
  return int(status['VmRSS'].split()[0]) / 1024, len(os.listdir(f'/proc/{process}/fd')), int(status['Threads'])


def count_steps(workdir):
  lines = read_json_lines(pathlib.Path(workdir, 'metrics.jsonl'))
  return lines[-1]['step'] if lines else 0


def soak(folder, minutes, every=EVERY):
  """[(s, step, MB, files, threads)] of a run of so many minutes, counted from its first steps."""
  workdir = folder / 'run'
  child = forked.start('configs/pretrain.py:smoke', folder / 'log.txt', workdir=workdir, **{
    'data.dir': folder / 'data', 'steps': 10 ** 7, 'save_every': 200, 'log_every': 20})
  samples, now = [], 0.0
  try:
    while not count_steps(workdir):
      if child.ends():
        raise RuntimeError(f'the run ended before its first step, see {folder / "log.txt"}')
      time.sleep(1)
    with open(folder / 'samples.csv', 'w', encoding='utf-8') as file:
      while now < 60 * minutes:
        samples.append((round(now, 1), count_steps(workdir), *measure(child.pid)))
        print(*samples[-1], sep=',', file=file, flush=True)
        began = time.monotonic()
        time.sleep(every)
        now += min(time.monotonic() - began, 2 * every)
  finally:
    child.send(signal.SIGTERM)
    child.wait()
  if child.code != preemption.EXIT_CODE:
    raise RuntimeError(f'the run ended with code {child.code} and not as asked, see {folder / "log.txt"}')
  return np.array(samples)


def judge(samples, warm=WARM, rest=REST):
  """Prints what came of it; returns how many of the three rules hold."""
  kept = samples[samples[:, 0] >= warm * samples[-1, 0]]
  window = (kept[:, 0] - kept[0, 0]) // rest
  least = np.array([np.append(part[:, 1].mean(), part[:, 2:].min(0)) for part in (
    kept[window == number] for number in np.unique(window)[:max(2, int(kept[-1, 0] - kept[0, 0]) // rest)])])
  steps, memory, files, threads = least.T
  slope, error = fit(steps / 1000, memory)
  rules = [('memory at rest', f'{slope:+.2f} MB per 1,000 steps, standard error {error:.2f}', slope < LIMIT)]
  for name, column in (('open files', files), ('threads', threads)):
    ends = max(1, len(column) // 10)
    first, last = column[:ends].min(), column[-ends:].min()
    rules.append((name, f'{first:.0f} after the warm-up, {last:.0f} at the end', last <= first))
  print(f'{kept[-1, 1] - kept[0, 1]:.0f} steps in {(kept[-1, 0] - kept[0, 0]) / 60:.0f} minutes after the warm-up; at '
        f'rest between {memory.min():.0f} and {memory.max():.0f} MB, with saves up to {kept[:, 2].max():.0f} MB')
  for name, words, holds in rules:
    print(f'  {name}: {words}{"" if holds else "  TOO MUCH"}')
  return sum(bool(holds) for *_, holds in rules)


def fit(x, y):
  """(slope, its standard error) by least squares."""
  slope, shift = np.polyfit(x, y, 1)
  spread = np.sum((y - slope * x - shift) ** 2) / max(1, len(x) - 2)
  return slope, np.sqrt(spread / np.sum((x - x.mean()) ** 2))


def main():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.soak', description=__doc__.split('\n')[0])
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--folder', help='for the run and samples.csv; a temporary one without')
  parser.add_argument('--again', help='samples.csv of a soak that was, to be judged')
  flags = parser.parse_args()
  malloc.set_up()  # as mtpret_jax.main does
  if flags.again:
    print(f'soak: {judge(np.loadtxt(flags.again, delimiter=","))} of 3')
    return 0
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    held = judge(soak(folder, flags.minutes))
  print(f'soak: {held} of 3')
  return int(held < 3)


if __name__ == '__main__':
  sys.exit(main())
