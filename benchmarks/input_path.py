"""The host's way from stored records to batches beside torchvision's DataLoader with MoCo v2's transforms, in one run.

    python -m benchmarks.input_path --size=224

Phantom radiographs are stored at 256 px; both sides read the same bytes, in one process and on one core:

  ours         ArrayRecord -> Grain -> decoded, one channel, brought to `--stored` px -> uint8 batches of two orders.
               The views are made on the device, within the step; `with views` adds what that takes on this CPU
  torchvision  PNG files -> Pillow -> two views by MoCo v2's transforms (facebookresearch/moco main_moco.py --aug-plus)
               -> DataLoader without workers, which would be other cores

They take turns, and the ratio is taken pair by pair. Torch and torchvision are not in requirements.txt: without them
only our side runs.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import random
import statistics
import tempfile
import time

NAME = 'nih_chest_xray'


def parse_options():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', type=int, default=224, help='px, side of a view')
  parser.add_argument('--stored', type=int, default=256, help='px, side of what the host hands to the device')
  parser.add_argument('--batch', type=int, default=32, help='images')
  parser.add_argument('--images', type=int, default=1000, help='phantoms to render')
  parser.add_argument('--batches', type=int, default=4, help='in each measurement')
  parser.add_argument('--repeats', type=int, default=7, help='measurements of each side')
  return parser.parse_args()


def prepare(folder, images):
  """Renders and builds; returns the training split as a source, and the same images as PNG files."""
  from mtpret_jax.data.sources import open_source
  from tfds_builders import build, phantoms
  phantoms.write(NAME, folder / 'archives', images, size=256)
  build.prepare(NAME, folder / 'archives', folder / 'prepared', size='256')
  source = open_source(NAME, folder / 'prepared', '256', 'train', images_only=True)
  paths = []
  for index in range(len(source)):
    paths.append(folder / f'{index}.png')
    paths[-1].write_bytes(source.records[index]['image'])
  return source, paths


def make_our_batches(source, options):
  """An endless iterator of our host batches, read in the calling thread."""
  import grain
  from ml_collections import ConfigDict

  from mtpret_jax.data import pipeline
  config = ConfigDict(dict(
    seed=0, batch=options.batch, contrast=dict(group=options.batch // 4, shuffle_groups=4),
    data=dict(weights='by_images', size=options.stored)))
  batches = pipeline.make_contrast_batches([source], config)
  return (batch for _, batch in batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))


def make_our_views(batches, options):
  """The same batches with both views made by this CPU, as the step makes them."""
  import jax

  from configs.common import moco_v2_augment
  from mtpret_jax.augment import make_view
  make = jax.jit(functools.partial(make_view, config=moco_v2_augment(options.size), dtype='float32'))
  for index, batch in enumerate(batches):
    rngs = jax.random.split(jax.random.key(index))
    yield jax.block_until_ready([make(batch[view], rng) for view, rng in zip(('query', 'key'), rngs, strict=True)])


def make_torch_batches(paths, options):
  """MoCo v2's input as published, on grey images: an endless iterator of two (B, 1, size, size) tensors."""
  import torch
  from PIL import ImageFilter
  from torchvision import transforms
  torch.set_num_threads(1)

  def blur(image):
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

  view = transforms.Compose([
    transforms.RandomResizedCrop(options.size, scale=(0.2, 1.0)),
    transforms.RandomApply([transforms.ColorJitter(0.4, 0.4)], p=0.8),
    transforms.RandomApply([blur], p=0.5),
    transforms.RandomHorizontalFlip(),
    transforms.ToTensor(),
    transforms.Normalize([0.5], [0.25])])

  return load_in_torch(paths, lambda image: (view(image), view(image)), options.batch)


def load_in_torch(paths, make_views, batch, *, workers=0, ahead=None):
  """PyTorch's DataLoader of shuffled grey images: an endless iterator of what `make_views` makes of each, batched.
  `workers` processes each have `ahead` batches ready. One order follows the other, so that it never starts anew."""
  import torch
  from PIL import Image

  class Files(torch.utils.data.Dataset):
    def __len__(self):
      return len(paths)

    def __getitem__(self, index):
      with Image.open(paths[index]) as file:
        return make_views(file.convert('L'))

  files = Files()
  order = torch.utils.data.RandomSampler(files, num_samples=len(files) * 10 ** 6)
  return iter(torch.utils.data.DataLoader(files, batch, sampler=order, num_workers=workers, prefetch_factor=ahead,
                                          pin_memory=torch.cuda.is_available()))


def measure(batches, options):
  """Images a second over some batches."""
  began = time.perf_counter()
  for _ in range(options.batches):
    next(batches)
  return options.batch * options.batches / (time.perf_counter() - began)


def time_decoding(encoded):
  """Images a second that OpenCV decodes, in processor time of one thread."""
  import cv2
  cv2.setNumThreads(1)
  began = time.process_time()
  for image in encoded:
    cv2.imdecode(image, cv2.IMREAD_GRAYSCALE)
  return len(encoded) / (time.process_time() - began)


def compare_storage(source):
  """Prints what storing small images uncompressed costs in bytes and saves in decoding."""
  import cv2
  import numpy as np
  stored = [np.frombuffer(source.records[index]['image'], np.uint8) for index in range(len(source))]
  packed = [cv2.imencode('.png', cv2.imdecode(image, cv2.IMREAD_GRAYSCALE))[1] for image in stored]
  rates = [[time_decoding(images) for images in (stored, packed)] for _ in range(5)]
  print(f'  decoding alone: {statistics.median(rate[0] / rate[1] for rate in rates):.1f} times as many images/s as '
        f'from compressed PNG, for {sum(map(len, stored)) / sum(map(len, packed)):.1f} times the bytes')


def compare(options):
  with tempfile.TemporaryDirectory() as folder:
    source, paths = prepare(pathlib.Path(folder), options.images)
    sides = {'ours': make_our_batches(source, options),
             'ours with views': make_our_views(make_our_batches(source, options), options)}
    if all(map(importlib.util.find_spec, ('torch', 'torchvision'))):
      sides['torchvision'] = make_torch_batches(paths, options)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f'{len(source)} images stored at 256 px, views of {options.size} px, batches of {options.batch}, one core, '
          f'of which others kept {os.getloadavg()[0]:.1f} busy over the last minute')
    compare_storage(source)
    rates = {side: [] for side in sides}
    for repeat in range(options.repeats + 1):
      for side, batches in sides.items():
        rate = measure(batches, options)
        if repeat:  # the first is the warm-up
          rates[side].append(rate)
  for side, measured in rates.items():
    print(f'  {side:>15}: {statistics.median(measured):7.0f} images/s, median of {options.repeats}')
  if 'torchvision' not in rates:
    print('torchvision is not here to compare with: pip install torch torchvision')
    return
  for side in ('ours with views', 'ours'):
    ratios = [ours / theirs for ours, theirs in zip(rates[side], rates['torchvision'], strict=True)]
    print(f'input_path {options.size}: ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) '
          f'over torchvision, {side}')


if __name__ == '__main__':
  compare(parse_options())
