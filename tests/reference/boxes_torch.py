"""torchvision's box operations. `python -m tests.reference.boxes_torch` records them in boxes.npz. Needs torch."""

import numpy as np
import torch
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder

from tests.reference import boxes_setting as s


def record():
  """{name: array}, all in torchvision's order of coordinates."""
  boxes, anchors = (torch.tensor(s.swap(s.random_boxes(name, 40))) for name in ('boxes', 'anchors'))
  deltas = torch.tensor(s.draw.normal('codes', (40, 4)))
  kept = {'iou': ops.box_iou(boxes, anchors), 'clipped': ops.clip_boxes_to_image(boxes, (60, 80))}
  for weights in s.WEIGHTS:
    coder = BoxCoder(weights)
    kept[f'code {weights}'] = coder.encode_single(boxes, anchors)
    kept[f'decoded {weights}'] = coder.decode_single(deltas * 3, anchors)
  for name, arrays in s.cases().items():
    case, scores, classes = (torch.tensor(array) for array in arrays)
    case = case[:, [1, 0, 3, 2]]
    for threshold in s.THRESHOLDS:
      kept[f'nms {name} {threshold}'] = ops.nms(case, scores, threshold)
      kept[f'batched {name} {threshold}'] = ops.batched_nms(case, scores, classes, threshold)
  return {name: np.asarray(array) for name, array in kept.items()}


if __name__ == '__main__':
  np.savez_compressed(s.FIXTURE, **record())
