"""Seconds from the command to the first step of a run, with an empty compilation cache and with a full one.

    python -m benchmarks.startup --config=configs/finetune.py:lung --data_dir=data/phantoms

The data must be prepared: run the config once. Other flags, such as `--config.data.archives=DIR`, go to each start.
Each start is a process of its own, killed once its first step is in `metrics.jsonl`. The time includes imports, opening
the data, the initial state, compiling and the step. Processor time is that of all threads; it says more than the wall
time where other programs run.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def time_start(config: str, data_dir: str, more: list[str], folder: str, number: int) -> tuple[float, float]:
  """(wall seconds, processor seconds) to the first step."""
  workdir = pathlib.Path(folder, f'run{number}')
  began = time.perf_counter()
  log = pathlib.Path(folder, f'run{number}.log')
  with log.open('wb') as output:
    process = subprocess.Popen(
      [sys.executable, '-m', 'mtpret_jax.main', f'--config={config}', f'--config.workdir={workdir}',
       f'--config.data.dir={data_dir}', '--config.log_every=1', *more],
      env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(pathlib.Path(folder, 'compiled'))},
      stdout=output, stderr=subprocess.STDOUT)
  metrics = workdir / 'metrics.jsonl'
  while not (metrics.exists() and metrics.stat().st_size):
    if process.poll() is not None:
      last = log.read_text(errors='replace').strip().rpartition('\n')[2]
      raise SystemExit(f'the run ended with code {process.returncode} before its first step; its last line: {last}')
    time.sleep(0.02)
  seconds = time.perf_counter() - began
  process.kill()
  _, _, used = os.wait4(process.pid, 0)
  return seconds, used.ru_utime + used.ru_stime


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='configs/pretrain.py', help='as for mtpret_jax.main (default: %(default)s)')
  parser.add_argument('--data_dir', default='data/phantoms')
  parser.add_argument('--starts', type=int, default=4)
  options, more = parser.parse_known_args()
  with tempfile.TemporaryDirectory() as folder:
    print(f'{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} over the last minute')
    for number in range(options.starts):
      wall, processor = time_start(options.config, options.data_dir, more, folder, number)
      print(f'startup of {options.config}: {wall:.1f} s, {processor:.1f} s of processor time, with '
            f'{"a full" if number else "an empty"} compilation cache', flush=True)


if __name__ == '__main__':
  main()
