"""Ten steps of MoCo for both sides: hyperparameters, images and the initial queue."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('moco.npz')
TRUNK, STEPS, BATCH, SIZE = 'resnet18', 10, 32, 32
GROUP, SHUFFLE_GROUPS = 4, 4  # images in a batch-norm group; groups that keys are shuffled across
DIM, QUEUE, TEMPERATURE, MOMENTUM = 16, 64, 0.2, 0.9  # low, so that the key encoder moves visibly in ten steps
LEARNING_RATE, SGD_MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 0.1  # strong decay, so that it matters


def images(step):
  """(query, key), each (BATCH, SIZE, SIZE, 1) uint8: two noisy copies of the same coarse pattern."""
  stream = draw.stream(f'images of step {step}')
  pattern = np.kron(stream.randint(40, 216, (BATCH, 8, 8)), np.ones((1, SIZE // 8, SIZE // 8), int))
  noisy = pattern + stream.randint(-40, 40, (2, BATCH, SIZE, SIZE))
  return noisy[0, ..., None].astype(np.uint8), noisy[1, ..., None].astype(np.uint8)


def standardised(images_BHW1):
  """(B, 1, H, W) f32 for PyTorch: each image minus its mean, divided by its standard deviation."""
  images = images_BHW1.astype(np.float32).transpose(0, 3, 1, 2) / 255
  return (images - images.mean((1, 2, 3), keepdims=True)) / images.std((1, 2, 3), keepdims=True)


def first_queue():
  queue_KD = draw.normal('queue', (QUEUE, DIM))
  return queue_KD / np.linalg.norm(queue_KD, axis=1, keepdims=True)
