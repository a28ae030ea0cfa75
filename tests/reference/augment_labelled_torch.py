"""Image, mask and boxes moved by torchvision.

`python -m tests.reference.augment_labelled_torch` records them in augment_labelled.npz. Needs torch and torchvision.
Masks are resized with 'nearest-exact': torchvision's default 'nearest' is off by up to half a pixel.
"""

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from tests.reference.augment_labelled_setting import FIXTURE, IMAGE, SIZE, VIEWS, make_boxes, make_image, make_mask


def move_all():
  """{image (views, SIZE, SIZE) in 0-1, mask (views, SIZE, SIZE), boxes (views, 5, 4) y0, x0, y1, x1 in 0-1 of the view,
  clipped to it, without area where nothing is visible}."""
  exact = functional.InterpolationMode.NEAREST_EXACT
  image = tv_tensors.Image(torch.tensor(make_image()[None] / np.float32(255)))
  mask = torch.tensor(make_mask().astype(np.uint8))[None]
  corners = torch.tensor(make_boxes())[:, [1, 0, 3, 2]] * torch.tensor((IMAGE[1], IMAGE[0]) * 2)
  boxes = tv_tensors.BoundingBoxes(corners, format='XYXY', canvas_size=IMAGE)
  moved = {'image': [], 'mask': [], 'boxes': []}
  for crop, flip in VIEWS:
    turn = functional.horizontal_flip if flip else lambda each: each
    moved['image'].append(turn(functional.resized_crop(image, *crop, [SIZE, SIZE], antialias=True))[0].numpy())
    part = functional.resize(functional.crop(mask, *crop), [SIZE, SIZE], interpolation=exact)
    moved['mask'].append(turn(part)[0].numpy().astype(np.int8))
    cut = functional.clamp_bounding_boxes(turn(functional.resized_crop(boxes, *crop, [SIZE, SIZE])))
    moved['boxes'].append(cut.numpy()[:, [1, 0, 3, 2]] / SIZE)
  return {name: np.stack(arrays) for name, arrays in moved.items()}


if __name__ == '__main__':
  np.savez_compressed(FIXTURE, **move_all())
