"""Images and weights for the comparison of DeepLab-V3."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('deeplab.npz')
DILATIONS, WIDTH, CLASSES = (12, 24, 36), 256, 3
BATCH, SIZE = 2, (104, 200)  # 13 x 25 at stride 8: dilation 24 reaches other pixels along one axis only, 36 along none
MODES = ('inference', 'training')


def weight(name, shape):
  """The weight of torchvision's `name`. The last layer is small, so that logits are of the order of one."""
  drawn = draw.weight(name.removeprefix('backbone.'), shape)
  return drawn / 100 if name == 'classifier.4.weight' else drawn


def images():
  """(B, 1, H, W), a faint and a strong image: batch norm over the means of similar images magnifies rounding."""
  return draw.normal('images', (BATCH, 1, *SIZE)) * np.float32([0.5, 1.5])[:, None, None, None]
