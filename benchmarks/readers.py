"""How many threads and processes should read on this host? Images per second of stage 1's batches in each setting.

    python -m benchmarks.readers --settings 16,0 4,0 2,4 2,8

A setting is `data.threads` (of each process) and `data.workers`. All else is as in `configs/pretrain.py:mtpret11`, on
phantom radiographs stored at 256 px. The settings take turns.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

from tqdm import tqdm

from mtpret_jax.data.sources import Source


def parse_options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.readers', description=__doc__.split('\n')[0])
  parser.add_argument('--settings', nargs='+', default=['16,0', '4,0', '2,4', '2,8'], help='threads,workers')
  parser.add_argument('--images', type=int, default=600, help='phantoms to render')
  parser.add_argument('--seconds', type=float, default=10.0, help='of each turn')
  parser.add_argument('--repeats', type=int, default=3, help='turns')
  return parser.parse_args()


def measure(source: Source, setting: str, options: argparse.Namespace) -> float:
  """Images per second, without those that were prefetched before the clock started."""
  from configs import pretrain
  from mtpret_jax.data import pipeline
  config = pretrain.get_config('mtpret11')
  config.data.threads, config.data.workers = map(int, setting.split(','))
  with pipeline.stream(pipeline.make_moco_batches([source], config), 0, config.data) as feed:
    for _ in range(2 * max(config.data.prefetch, config.data.threads) * max(config.data.workers, 1)):
      next(feed)
    images, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < options.seconds:
      next(feed)
      images += config.batch
  return images / seconds


def main() -> None:
  from absl import flags

  from benchmarks.support import phantom_data
  options = parse_options()
  flags.FLAGS(sys.argv[:1])  # Grain's processes read flags
  with tempfile.TemporaryDirectory() as folder:
    phantom_data.prepare(folder, options.images)
    source = phantom_data.open_prepared(folder)
    turns = [[measure(source, setting, options) for setting in options.settings]
             for _ in tqdm(range(options.repeats), desc='readers', unit='turn', leave=False, disable=None)]
  print(f'{len(os.sched_getaffinity(0))} cores; load {os.getloadavg()[0]:.1f} over the last minute')
  for setting, speeds in zip(options.settings, zip(*turns, strict=True), strict=True):
    threads, workers = setting.split(',')
    print(f'readers: data.threads={threads} data.workers={workers}: {statistics.median(speeds):.0f} images/s '
          f'({min(speeds):.0f} to {max(speeds):.0f})')


if __name__ == '__main__':
  main()
