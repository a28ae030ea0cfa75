"""The host's way from stored records to batches beside torchvision and tf.data with MoCo v2's transforms, in one run;
how, says `sides.py`.

    python -m benchmarks.input_path --size=224

Phantom radiographs are stored at 256 px; all sides read the same bytes, each on one core, nothing ahead of time:

  ours         ArrayRecord -> Grain -> decoded, one channel, brought to `--stored` px -> uint8 batches of two orders.
               The views are made on the device, within the step
  views        the same, and the views made by this core with XLA
  torchvision  PNG files -> Pillow -> two views by MoCo v2's transforms -> DataLoader without workers
  tf.data      PNG files -> two views by the same transforms of tf.image -> batches

What is not installed of torchvision and tensorflow is left out.
"""

import argparse
import functools
import importlib.util
import os
import statistics
import tempfile
import time

from benchmarks.support import input_rivals, prepared, sides


def parse_options():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', type=int, default=224, help='px, side of a view')
  parser.add_argument('--stored', type=int, default=256, help='px, side of what the host hands to the device')
  parser.add_argument('--batch', type=int, default=32, help='images')
  parser.add_argument('--images', type=int, default=2000, help='phantoms to render')
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  sides.add_options(parser, steps=20)
  return parser.parse_args()


def use_one_core():
  """Of this process, whatever threads its libraries will start."""
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def make_our_batches(options):
  """An endless iterator of our host batches, read in the calling thread."""
  import grain
  from ml_collections import ConfigDict

  from mtpret_jax.data import pipeline
  config = ConfigDict(dict(
    seed=0, batch=options.batch, moco=dict(group=options.batch // 4, shuffle_groups=4),
    data=dict(weights='by_images', size=options.stored)))
  batches = pipeline.make_moco_batches([prepared.open_prepared(options.folder)], config)
  return (batch for _, batch in batches.to_iter_dataset(grain.ReadOptions(num_threads=0)))


def make_our_views(options):
  """The same batches with both views made by this core, as the step makes them."""
  import jax

  from configs.common import moco_v2_augment
  from mtpret_jax.augment.views import make_view
  make = jax.jit(functools.partial(make_view, config=moco_v2_augment(options.size), dtype='float32'))
  for index, batch in enumerate(make_our_batches(options)):
    rngs = jax.random.split(jax.random.key(index))
    yield jax.block_until_ready([make(batch[view], rng) for view, rng in zip(('query', 'key'), rngs, strict=True)])


def make_rival(name, options):
  return input_rivals.RIVALS[name][1](prepared.list_files(options.folder), options)


def make_side(make, options):
  use_one_core()
  batches = make(options)

  def take_steps(count):
    for _ in range(count):
      next(batches)
  return take_steps, 'one core'


def time_decoding(encoded):
  """Images a second that are decoded, in processor time of one thread."""
  from mtpret_jax.data.records import decode_grey
  began = time.process_time()
  for image in encoded:
    decode_grey(image)
  return len(encoded) / (time.process_time() - began)


def compare_storage(source):
  """Prints what storing small images uncompressed costs in bytes and saves in decoding."""
  from mtpret_jax.data.records import decode_grey
  from tfds_builders.common.images import encode
  stored = [source.records[index]['image'] for index in range(min(len(source), 300))]
  packed = [encode(decode_grey(image)) for image in stored]
  rates = [[time_decoding(images) for images in (stored, packed)] for _ in range(5)]
  print(f'decoding alone: {statistics.median(rate[0] / rate[1] for rate in rates):.1f} times as many images/s as from '
        f'compressed PNG, for {sum(map(len, stored)) / sum(map(len, packed)):.1f} times the bytes')


def main():
  options = parse_options()
  rivals = [name for name, (needs, _) in input_rivals.RIVALS.items() if all(map(importlib.util.find_spec, needs))]
  makers = {name: functools.partial(make_side, functools.partial(make_rival, name)) for name in rivals}
  makers = {'ours': functools.partial(make_side, make_our_batches), **makers,
            'views': functools.partial(make_side, make_our_views)}
  with tempfile.TemporaryDirectory() as folder:
    if not options.folder:
      for name in set(input_rivals.RIVALS) - set(rivals):
        print(f'{name} is not here to compare with: see benchmarks/requirements.txt')
      options.folder = folder
      prepared.prepare(folder, options.images)
      compare_storage(prepared.open_prepared(folder))
    sides.run(makers, 'benchmarks.input_path', options,
              f'views of {options.size} px from images stored at 256 px, batches of {options.batch}, one core a side',
              (f'input_path {options.size}', {'views': 'ours with views', **{name: name for name in rivals}}),
              [f'--folder={options.folder}'])


if __name__ == '__main__':
  main()
