"""Seconds from the command to the first step of the default run, with an empty compilation cache and with a full one.

    python -m benchmarks.startup --data_dir data/phantoms

The datasets must be prepared: run `configs/pretrain.py` once. Each start is a process of its own, killed once its first
step is in `metrics.jsonl`. The time includes imports, opening the data, the initial state and the step.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def time_start(data_dir: str, folder: str, number: int) -> float:
  """Seconds to the first step."""
  workdir = pathlib.Path(folder, f'run{number}')
  began = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, '-m', 'mtpret_jax.main', '--config=configs/pretrain.py', f'--config.workdir={workdir}',
     f'--config.data.dir={data_dir}', '--config.log_every=1'],
    env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(pathlib.Path(folder, 'compiled'))},
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  metrics = workdir / 'metrics.jsonl'
  while not (metrics.exists() and metrics.stat().st_size):
    if process.poll() is not None:
      raise SystemExit(f'the run ended with code {process.returncode} before its first step: is {data_dir} prepared?')
    time.sleep(0.02)
  seconds = time.perf_counter() - began
  process.kill()
  process.wait()
  return seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data_dir', default='data/phantoms')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    print(f'{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} over the last minute')
    first, *later = (time_start(options.data_dir, folder, number) for number in range(4))
  print(f'startup: {first:.1f} s with an empty cache, then {", ".join(f"{seconds:.1f}" for seconds in later)} s')


if __name__ == '__main__':
  main()
