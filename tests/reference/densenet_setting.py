"""The small DenseNet whose numbers are recorded, and how the weights of any DenseNet are drawn."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('densenet.npz')
NAME, GROWTH, DEPTHS = 'small_densenet', 8, (2, 1, 1, 1)
SHAPE = (4, 1, 68, 64)  # 68: the pool of the last two transitions leaves out a row


def weight(name, shape):
  """As `draw.weight`, with kernels that keep the size of what passes: the maps add up instead of the residuals."""
  kernel = draw.weight(name, shape)
  return kernel * np.float32(np.sqrt(shape[0] / shape[1])) if len(shape) == 4 else kernel
