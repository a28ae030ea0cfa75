"""MoCo v2's input as users of other libraries write it, for `input_path.py` and `stage1.py`.

The transforms are those of facebookresearch/moco main_moco.py --aug-plus, on grey images: random resized crop, jitter
of brightness and contrast, blur, flip, standardisation.
"""

import argparse
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def make_torch_batches(paths: Sequence[pathlib.Path], options: argparse.Namespace) -> Iterator:
  """torchvision's transforms of Pillow's images: an endless iterator of two (B, 1, size, size) tensors."""
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


def load_in_torch(paths: Sequence[pathlib.Path], make_views: Callable[[Any], Any], batch: int, *, workers: int = 0,
                  prefetch: int | None = None, pinned: bool = False) -> Iterator:
  """PyTorch's DataLoader of shuffled grey images: an endless iterator over batches of `make_views(image)`.

  Each of `workers` processes has `prefetch` batches ready. The sampler goes through the images a million times, so the
  loader never restarts its processes."""
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
  return iter(torch.utils.data.DataLoader(files, batch, sampler=order, num_workers=workers, prefetch_factor=prefetch,
                                          pin_memory=pinned))


def make_tf_batches(paths: Sequence[pathlib.Path], options: argparse.Namespace) -> Iterator:
  """tf.data and tf.image without prefetch: an endless iterator of two (B, size, size, 1) arrays.

  tf.image has no Gaussian blur; as in google-research/simclr data_util.py it is two depthwise convolutions."""
  import tensorflow as tf
  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  uniform = tf.random.uniform

  def sometimes(probability, change, image):
    return tf.cond(uniform([]) < probability, lambda: change(image), lambda: image)

  def crop(image):
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
      tf.shape(image), tf.zeros((1, 0, 4)), area_range=(0.2, 1), aspect_ratio_range=(3 / 4, 4 / 3), max_attempts=10,
      use_image_if_no_bounding_boxes=True)
    return tf.image.resize(tf.slice(image, begin, extent), (options.size, options.size))

  def jitter(image):
    image = tf.clip_by_value(image * uniform([], 0.6, 1.4), 0, 1)
    return tf.clip_by_value(tf.image.adjust_contrast(image, uniform([], 0.6, 1.4)), 0, 1)

  def blur(image):
    line = tf.exp(-tf.square(tf.range(-6.0, 7.0)) / (2 * tf.square(uniform([], 0.1, 2.0))))
    line = tf.reshape(line / tf.reduce_sum(line), (-1, 1, 1, 1))
    image = tf.nn.depthwise_conv2d(image[None], line, (1, 1, 1, 1), 'SAME')
    return tf.nn.depthwise_conv2d(image, tf.transpose(line, (1, 0, 2, 3)), (1, 1, 1, 1), 'SAME')[0]

  def view(image):
    image = sometimes(0.8, jitter, crop(image))
    return (tf.image.random_flip_left_right(sometimes(0.5, blur, image)) - 0.5) / 0.25

  def read(path):
    image = tf.image.convert_image_dtype(tf.io.decode_png(tf.io.read_file(path), channels=1), tf.float32)
    return view(image), view(image)

  settings = tf.data.Options()
  settings.autotune.enabled = False
  settings.experimental_optimization.inject_prefetch = False
  settings.threading.private_threadpool_size = 1
  files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths]).shuffle(len(paths)).repeat()
  yield from files.map(read).batch(options.batch, drop_remainder=True).with_options(settings).as_numpy_iterator()


# Name -> (modules that must be installed, function that makes the batches).
BASELINES = {'torchvision': (('torch', 'torchvision'), make_torch_batches),
             'tf.data': (('tensorflow',), make_tf_batches)}
