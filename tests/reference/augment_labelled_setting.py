"""Crops and flips of image, mask and boxes for the comparison with torchvision."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('augment_labelled.npz')
IMAGE, SIZE = (48, 40), 24  # px: rows and columns of the image, side of the view
# (top, left, height, width), flip: shrunk, enlarged, both along different axes, the whole image
VIEWS = [((3, 5, 37, 29), False), ((3, 5, 37, 29), True), ((20, 11, 13, 17), True), ((6, 0, 15, 40), False),
         ((0, 0, 48, 40), True)]


def make_image():
  return draw.uniform('labelled image', IMAGE, 0, 255).astype(np.uint8)


def make_mask():
  """Blocks of -1, 0, 1, 2, some smaller than a pixel of the view."""
  blocks = draw.stream('labelled mask').randint(-1, 3, (16, 8))
  return np.kron(blocks, np.ones((3, 5), int)).astype(np.int8)


def make_boxes():
  """(5, 4) y0, x0, y1, x1 in 0-1: some inside all crops, some clipped, some outside."""
  corners = draw.uniform('labelled boxes', (5, 2, 2), 0, 1)
  return np.concatenate([corners.min(1), corners.max(1)], axis=1)
