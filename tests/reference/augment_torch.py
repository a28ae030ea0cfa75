"""Resized crops by torchvision, and the quantiles of the crops that RandomResizedCrop draws.

`python -m tests.reference.augment_torch` records them in augment.npz. Needs torch and torchvision.
"""

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from tests.reference import draw
from tests.reference.augment_setting import AREA, BOXES, FIXTURE, IMAGE, QUANTILES, RATIO, SIDE, SIZE, describe


def resized_crops():
  """(boxes, SIZE, SIZE): the drawn image cropped and resized with antialiasing."""
  image = torch.tensor(draw.uniform('image', IMAGE, 0, 1))[None]
  return np.stack([resized_crop(image, *box, [SIZE, SIZE], antialias=True)[0].numpy() for box in BOXES])


def crop_quantiles(draws=20_000):
  """(4, quantiles) of area, aspect ratio, and relative position from the top and from the left."""
  torch.manual_seed(0)
  image = torch.empty(1, SIDE, SIDE)
  crops = np.array([RandomResizedCrop.get_params(image, AREA, RATIO) for _ in range(draws)], np.float64)
  return np.quantile(describe(crops), QUANTILES, axis=1).T


if __name__ == '__main__':
  np.savez_compressed(FIXTURE, crops=resized_crops(), quantiles=crop_quantiles())
