"""How many threads and processes should read on this host? Images a second of stage 1's batches, for each setting.

    python -m benchmarks.readers --settings 16,0 4,0 2,4 2,8

A setting is `data.threads` (of each process) and `data.workers`; as in `configs/pretrain.py:mtpret11` in all else, on
phantom radiographs stored at 256 px. The settings take turns.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time

from tqdm import tqdm


def parse_options():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.readers', description=__doc__.split('\n')[0])
  parser.add_argument('--settings', nargs='+', default=['16,0', '4,0', '2,4', '2,8'], help='threads,workers')
  parser.add_argument('--images', type=int, default=600, help='phantoms to render')
  parser.add_argument('--seconds', type=float, default=10.0, help='of each turn')
  parser.add_argument('--repeats', type=int, default=3, help='turns')
  return parser.parse_args()


def measure(source, setting, options):
  """Images a second, without those that were read ahead before the clock started."""
  from configs import pretrain
  from mtpret_jax.data import pipeline
  config = pretrain.get_config('mtpret11')
  config.data.threads, config.data.workers = map(int, setting.split(','))
  with pipeline.stream(pipeline.make_moco_batches([source], config), 0, config.data) as feed:
    for _ in range(2 * max(config.data.prefetch, config.data.threads) * max(config.data.workers, 1)):
      next(feed)
    began = time.perf_counter()
    for seen in itertools.count(1):
      next(feed)
      if (spent := time.perf_counter() - began) > options.seconds:
        return seen * config.batch / spent


def main():
  from absl import flags

  from benchmarks.support import prepared
  options = parse_options()
  flags.FLAGS(sys.argv[:1])  # Grain asks for flags of its own
  with tempfile.TemporaryDirectory() as folder:
    prepared.prepare(folder, options.images)
    source = prepared.open_prepared(folder)
    turns = [[measure(source, setting, options) for setting in options.settings]
             for _ in tqdm(range(options.repeats), desc='readers', unit='turn', leave=False)]
  print(f'{len(os.sched_getaffinity(0))} cores; load {os.getloadavg()[0]:.1f} over the last minute')
  for setting, rates in zip(options.settings, zip(*turns, strict=True), strict=True):
    threads, workers = setting.split(',')
    print(f'readers: data.threads={threads} data.workers={workers}: {statistics.median(rates):.0f} images/s '
          f'({min(rates):.0f} to {max(rates):.0f})')


if __name__ == '__main__':
  main()
