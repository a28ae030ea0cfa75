"""Weak scaling of the host's input path: does each of several processes read as fast as one alone?

    python -m benchmarks.input_scaling --processes=2

Each process reads its rows of the batches of stage 1, as each host of a pod does: the same prepared dataset, a global
batch of `--batch` rows a process, one core for each. One process alone and all together take turns; the efficiency is
the rate of all over that of the one, times their number, turn by turn. More processes than cores say nothing.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time

from benchmarks.support import prepared


def parse_options():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.input_scaling', description=__doc__.split('\n')[0])
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--batch', type=int, default=32, help='images, of each process')
  parser.add_argument('--size', type=int, default=256, help='px, side of what the host hands to the device')
  parser.add_argument('--images', type=int, default=1000, help='phantoms to render')
  parser.add_argument('--seconds', type=float, default=2.0, help='of each turn')
  parser.add_argument('--repeats', type=int, default=7, help='turns')
  return parser.parse_args()


def read(process, options, folder, barrier, rates):
  """One process: in each turn counts the images that it reads, alone (the first only) and then with all others."""
  import grain
  from ml_collections import ConfigDict

  from mtpret_jax.data import pipeline
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {cores[process % len(cores)]})
  source = prepared.open_prepared(folder)
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
        rates.put((turn, together, count(batches, options)))


def count(batches, options):
  """Images a second."""
  began, seen = time.perf_counter(), 0
  while time.perf_counter() - began < options.seconds:
    seen += len(next(batches)[1]['query'])
  return seen / (time.perf_counter() - began)


def measure(options, folder):
  """[(images/s of one alone, images/s of all together)] of each turn."""
  context = multiprocessing.get_context('spawn')
  barrier, rates = context.Barrier(options.processes), context.Queue()
  workers = [context.Process(target=read, args=(process, options, folder, barrier, rates))
             for process in range(options.processes)]
  for worker in workers:
    worker.start()
  measured = [rates.get(timeout=600) for _ in range(options.repeats * (options.processes + 1))]
  for worker in workers:
    worker.join()
  return [tuple(sum(rate for at, together, rate in measured if (at, together) == (turn, which))
                for which in (False, True)) for turn in range(options.repeats)]


def main(options):
  with tempfile.TemporaryDirectory() as folder:
    prepared.prepare(folder, options.images)
    turns = measure(options, folder)
  n = options.processes
  print(f'{n} processes on {os.cpu_count()} cores, of which others kept {os.getloadavg()[0]:.1f} busy over the last '
        f'minute; images of {options.size} px')
  for title, rates in zip(('one alone', f'{n} together'), zip(*turns, strict=True), strict=True):
    print(f'  {title:>12}: {statistics.median(rates):7.0f} images/s, median of {options.repeats}')
  ratios = [together / (n * alone) for alone, together in turns]
  print(f'input_scaling {n}: efficiency {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})')


if __name__ == '__main__':
  main(parse_options())
