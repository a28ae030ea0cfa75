"""Ten steps of MoCo that can be repeated anywhere: the numbers, the images and the first queue."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('moco.npz')
TRUNK, STEPS, BATCH, SIZE = 'resnet18', 10, 32, 64
GROUP, SHUFFLE_GROUPS = 4, 4  # images in a batch-norm group; groups among which the keys change place
DIM, QUEUE, TEMPERATURE, MOMENTUM = 16, 64, 0.2, 0.9  # so quick a slow encoder shows within ten steps
RATE, SGD_MOMENTUM, DECAY = 0.01, 0.9, 0.1  # so strong a decay shows too


def images(step):
  """(query, key), each (BATCH, SIZE, SIZE, 1) uint8: two noisy shots of the same coarse pattern."""
  stream = draw.stream(f'images of step {step}')
  pattern = np.kron(stream.randint(40, 216, (BATCH, 8, 8)), np.ones((1, SIZE // 8, SIZE // 8), int))
  shots = pattern + stream.randint(-40, 40, (2, BATCH, SIZE, SIZE))
  return shots[0, ..., None].astype(np.uint8), shots[1, ..., None].astype(np.uint8)


def standardised(images_BHW1):
  """(B, 1, H, W) f32 as PyTorch wants it: each image less its mean, over its deviation."""
  images = images_BHW1.astype(np.float32).transpose(0, 3, 1, 2) / 255
  return (images - images.mean((1, 2, 3), keepdims=True)) / images.std((1, 2, 3), keepdims=True)


def first_queue():
  queue_KD = draw.normal('queue', (QUEUE, DIM))
  return queue_KD / np.linalg.norm(queue_KD, axis=1, keepdims=True)
