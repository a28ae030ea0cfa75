"""Crops for the comparison with torchvision."""

import pathlib

import numpy as np

FIXTURE = pathlib.Path(__file__).with_name('augment.npz')
IMAGE, SIZE = (64, 56), 16  # px: rows and columns of the image, side of the view
# top, left, height, width: whole, shrunk, enlarged, both along different axes, nearly unscaled, one pixel
BOXES = [(0, 0, 64, 56), (3, 5, 40, 33), (30, 20, 9, 7), (0, 49, 20, 7), (12, 0, 17, 16), (63, 55, 1, 1)]
SIDE, AREA, RATIO = 1000, (0.2, 1.0), (3 / 4, 4 / 3)  # a large side, so that rounding to whole pixels does not matter
QUANTILES = np.linspace(0.05, 0.95, 19)


def describe(crops):
  """(crops, 4) as (top, left, height, width) -> the four properties of each."""
  top, left, height, width = crops.T
  return np.stack([height * width / SIDE ** 2, width / height,
                   top / np.maximum(SIDE - height, 1), left / np.maximum(SIDE - width, 1)])
