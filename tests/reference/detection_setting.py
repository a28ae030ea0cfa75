"""A tiny Faster R-CNN head for both sides: config, feature maps, annotated boxes and weights."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from configs import common
from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('detection.npz')
SIZE, BATCH, CLASSES = (96, 160), 3, 2  # px; the pyramid's maps are 24 x 40 to 3 x 5 and 2 x 3
WIDTHS = (6, 10, 14, 18)
ALL = 100_000  # more samples than candidates, so that sampling is not random

CONFIG = ConfigDict(dict(
  common.faster_rcnn(800), width=8, roi_hidden=24, anchor_sizes=((12,), (24,), (40,), (64,), (96,)),
  rpn_proposals_train=(60, 80), rpn_proposals_test=(50, 70), rpn_sample=(ALL, ALL // 2), roi_sample=(ALL, ALL // 4),
  min_score=0.3, max_detections=64))

BOXES = (  # rows first, px; the second image has none
  ((10, 20, 50, 70), (30, 90, 90, 150), (5, 5, 14, 21)), (), ((40, 10, 60, 100),))
CLASS_IDS = ((0, 1, 1), (), (0,))


def features():
  """Four maps, (B, H, W, C)."""
  return [draw.normal(f'map {index}', (BATCH, SIZE[0] // stride, SIZE[1] // stride, channels))
          for index, (stride, channels) in enumerate(zip((4, 8, 16, 32), WIDTHS, strict=True))]


def targets(slots):
  """(boxes, class_id) padded to `slots`."""
  boxes, class_id = np.zeros((BATCH, slots, 4), np.float32), np.full((BATCH, slots), -1, np.int32)
  for row, (own, own_classes) in enumerate(zip(BOXES, CLASS_IDS, strict=True)):
    boxes[row, :len(own)], class_id[row, :len(own)] = np.reshape(own, (-1, 4)), own_classes
  return boxes, class_id


def weight(name, shape):
  """The weight of torchvision's `name`. Last layers are small: boxes stay near their anchors and scores below 1."""
  scale = {'bbox_pred': 0.1, 'cls_logits': 0.3, 'cls_score': 2.0}
  return draw.weight(name, shape) * np.float32(next((value for key, value in scale.items() if key in name), 1.0))


def rois():
  """(B, 13, 4), rows first, px: inside, across each border, outside, thinner than a pixel, empty, everything."""
  some = [(10, 20, 50, 70), (-20, -30, 30, 40), (80, 140, 130, 200), (3.3, 4.7, 3.4, 90.2), (0, 0, 96, 160),
          (20, 20, 20, 20), (95.5, 159.5, 96, 160), (97, 161, 130, 190), (-40, -40, -10, -5), (0, 0, 300, 400)]
  drawn = draw.uniform('regions', (BATCH, 3, 4), 0, 40) + np.float32([0, 0, 42, 90])
  return np.concatenate([np.tile(np.float32(some), (BATCH, 1, 1)), drawn], axis=1)
