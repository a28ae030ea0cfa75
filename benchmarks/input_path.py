"""From stored records to batches on the host, beside torchvision and tf.data with MoCo v2's transforms.

The comparison is described in `support/side_by_side.py`.

    python -m benchmarks.input_path --size=224

Phantom radiographs are stored at 256 px. All sides read the same bytes, each on one core, without prefetch:

  ours         ArrayRecord -> Grain -> decoded, one channel, resized to `--stored` px -> uint8 batches of queries and
               keys. The step makes the views on the device
  views        the same, and the views made on the same core with XLA
  torchvision  PNG files -> Pillow -> two views by MoCo v2's transforms -> DataLoader without workers
  tf.data      PNG files -> two views by the same transforms of tf.image -> batches

torchvision and tensorflow are left out where they are not installed.
"""

import argparse
import functools
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.support import baseline_inputs, phantom_data, side_by_side
from mtpret_jax.data.sources import Source


def parse_options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', type=int, default=224, help='px, side of a view')
  parser.add_argument('--stored', type=int, default=256, help='px, side of the images that the device gets')
  parser.add_argument('--batch', type=int, default=32, help='images')
  parser.add_argument('--images', type=int, default=2000, help='phantoms to render')
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  side_by_side.add_options(parser, steps=20)
  return parser.parse_args()


def use_one_core() -> None:
  """Pins this process to one core, whatever threads its libraries start."""
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def make_our_batches(options: argparse.Namespace) -> Iterator[dict]:
  """An endless iterator of our host batches, read in the calling thread."""
  import grain
  from ml_collections import ConfigDict

  from mtpret_jax.data import pipeline
  config = ConfigDict(dict(
    seed=0, batch=options.batch, moco=dict(group=options.batch // 4, shuffle_groups=4),
    data=dict(weights='by_images', size=options.stored)))
  batches = pipeline.make_moco_batches([phantom_data.open_prepared(options.folder)], config)
  return (batch for _, batch in batches.to_iter_dataset(grain.ReadOptions(num_threads=0)))


def make_our_views(options: argparse.Namespace) -> Iterator[list]:
  """The same batches, with both views made on this core as the step makes them."""
  import jax

  from configs.common import moco_v2_augment
  from mtpret_jax.augment.views import make_view
  make = jax.jit(functools.partial(make_view, config=moco_v2_augment(options.size), dtype='float32'))
  for index, batch in enumerate(make_our_batches(options)):
    rngs = jax.random.split(jax.random.key(index))
    yield jax.block_until_ready([make(batch[view], rng) for view, rng in zip(('query', 'key'), rngs, strict=True)])


def make_baseline(name: str, options: argparse.Namespace) -> Iterator:
  return baseline_inputs.BASELINES[name][1](phantom_data.list_files(options.folder), options)


def make_side(make: Callable[[argparse.Namespace], Iterator],
              options: argparse.Namespace) -> tuple[side_by_side.TakeSteps, str]:
  use_one_core()
  batches = make(options)

  def take_steps(count):
    for _ in range(count):
      next(batches)
  return take_steps, 'one core'


def time_decoding(encoded: Sequence[Any]) -> float:
  """Decoded images per second of processor time, in one thread."""
  from mtpret_jax.data.records import decode_grey
  began = time.process_time()
  for image in encoded:
    decode_grey(image)
  return len(encoded) / (time.process_time() - began)


def compare_storage(source: Source) -> None:
  """Small images are stored uncompressed: prints the bytes that this costs and the decoding time that it saves."""
  from mtpret_jax.data.records import decode_grey
  from tfds_builders.common.images import encode
  stored = [source.records[index]['image'] for index in range(min(len(source), 300))]
  packed = [encode(decode_grey(image)) for image in stored]
  ratios = [time_decoding(stored) / time_decoding(packed) for _ in range(5)]
  print(f'decoding alone: {statistics.median(ratios):.1f} times as many images/s as from compressed PNG, for '
        f'{sum(map(len, stored)) / sum(map(len, packed)):.1f} times the bytes')


def main() -> None:
  options = parse_options()
  baselines = [name for name, (modules, _) in baseline_inputs.BASELINES.items()
               if all(map(importlib.util.find_spec, modules))]
  makers = {name: functools.partial(make_side, functools.partial(make_baseline, name)) for name in baselines}
  makers = {'ours': functools.partial(make_side, make_our_batches), **makers,
            'views': functools.partial(make_side, make_our_views)}
  with tempfile.TemporaryDirectory() as folder:
    if not options.folder:
      for name in set(baseline_inputs.BASELINES) - set(baselines):
        print(f'{name} is not installed and is left out: see benchmarks/requirements.txt')
      options.folder = folder
      phantom_data.prepare(folder, options.images)
      compare_storage(phantom_data.open_prepared(folder))
    side_by_side.run(
      makers, 'benchmarks.input_path', options,
      f'views of {options.size} px from images stored at 256 px, batches of {options.batch}, one core per side',
      f'input_path {options.size}', {'views': 'ours with views', **{name: name for name in baselines}},
      [f'--folder={options.folder}'])


if __name__ == '__main__':
  main()
