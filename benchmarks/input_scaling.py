"""Weak scaling of the host's input path: does each of several processes read as fast as one alone?

    python -m benchmarks.input_scaling --processes=2

Each process reads its rows of the batches of stage 1, as each host of a pod does, on a core of its own: the same
prepared dataset, and a global batch of `--batch` rows per process. One process alone and all processes together take
turns. The efficiency is the images/s of all, over those of the one times their number, turn by turn. With more
processes than cores the result means nothing.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.support import phantom_data


def parse_options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.input_scaling', description=__doc__.split('\n')[0])
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--batch', type=int, default=32, help='images per process')
  parser.add_argument('--size', type=int, default=256, help='px, side of the images that the device gets')
  parser.add_argument('--images', type=int, default=1000, help='phantoms to render')
  parser.add_argument('--seconds', type=float, default=2.0, help='of each turn')
  parser.add_argument('--repeats', type=int, default=7, help='turns')
  return parser.parse_args()


def read(process: int, options: argparse.Namespace, folder: str, barrier: Any, speeds: Any) -> None:
  """One process. In each turn it puts the images/s that it reads into the queue `speeds`: the first process alone, then
  all together."""
  import grain
  from ml_collections import ConfigDict

  from mtpret_jax.data import pipeline
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {cores[process % len(cores)]})
  source = phantom_data.open_prepared(folder)
  config = ConfigDict(dict(
    seed=0, batch=options.batch * options.processes, moco=dict(group=options.batch // 4, shuffle_groups=4),
    data=dict(weights='by_images', size=options.size)))
  batches = iter(pipeline.make_moco_batches(
    [source], config, process=process, processes=options.processes).to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))
  next(batches)
  for turn in range(options.repeats):
    for together in (False, True):
      barrier.wait()
      if together or process == 0:
        speeds.put((turn, together, measure_speed(batches, options)))


def measure_speed(batches: Iterator, options: argparse.Namespace) -> float:
  """Images per second."""
  began, seen = time.perf_counter(), 0
  while time.perf_counter() - began < options.seconds:
    seen += len(next(batches)[1]['query'])
  return seen / (time.perf_counter() - began)


def measure(options: argparse.Namespace, folder: str) -> list[tuple[float, ...]]:
  """(images/s of one process alone, images/s of all together) of each turn."""
  context = multiprocessing.get_context('spawn')
  barrier, speeds = context.Barrier(options.processes), context.Queue()
  workers = [context.Process(target=read, args=(process, options, folder, barrier, speeds))
             for process in range(options.processes)]
  for worker in workers:
    worker.start()
  measured = [speeds.get(timeout=600) for _ in range(options.repeats * (options.processes + 1))]
  for worker in workers:
    worker.join()
  return [tuple(sum(speed for at, together, speed in measured if (at, together) == (turn, which))
                for which in (False, True)) for turn in range(options.repeats)]


def main(options: argparse.Namespace) -> None:
  with tempfile.TemporaryDirectory() as folder:
    phantom_data.prepare(folder, options.images)
    turns = measure(options, folder)
  n = options.processes
  print(f'{n} processes on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} over the last minute; images of '
        f'{options.size} px')
  for title, speeds in zip(('one alone', f'{n} together'), zip(*turns, strict=True), strict=True):
    print(f'  {title:>12}: {statistics.median(speeds):7.0f} images/s, median of {options.repeats}')
  ratios = [together / (n * alone) for alone, together in turns]
  print(f'input_scaling {n}: efficiency {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})')


if __name__ == '__main__':
  main(parse_options())
