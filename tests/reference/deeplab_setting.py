"""The images and weights that DeepLab-V3 is compared on."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('deeplab.npz')
RATES, WIDTH, KINDS = (12, 24, 36), 256, 3
BATCH, SIZE = 2, (104, 200)  # 13 x 25 at stride 8: the taps at 24 meet it in one direction, those at 36 in none
MODES = ('inference', 'training')


def weight(name, shape):
  """By torchvision's name; the last layer small, so that logits are of the order of one."""
  drawn = draw.weight(name.removeprefix('backbone.'), shape)
  return drawn / 100 if name == 'classifier.4.weight' else drawn


def images():
  """(B, 1, H, W), a faint one and a strong one: batch norm of the means of like ones would magnify rounding."""
  return draw.normal('images', (BATCH, 1, *SIZE)) * np.float32([0.5, 1.5])[:, None, None, None]
