"""torchvision's Faster R-CNN head on random weights and feature maps.

`python -m tests.reference.detection_torch` records its outputs in detection.npz. Needs torch and torchvision.
"""

from collections import OrderedDict

import numpy as np
import torch
from torchvision.models.detection import faster_rcnn, roi_heads, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tests.reference import detection_setting as s
from tests.reference.boxes_setting import swap


class Head(torch.nn.Module):
  """torchvision's FasterRCNN without the trunk, under its parameter names."""

  def __init__(self, config):
    super().__init__()
    self.fpn = FeaturePyramidNetwork(list(s.WIDTHS), config.width, LastLevelMaxPool())
    anchors = AnchorGenerator(config.anchor_sizes, (config.aspect_ratios,) * len(config.anchor_sizes))
    names = ('training', 'testing')
    self.rpn = rpn.RegionProposalNetwork(
      anchors, rpn.RPNHead(config.width, anchors.num_anchors_per_location()[0]), *config.rpn_match_iou[::-1],
      config.rpn_sample[0], config.rpn_sample[1] / config.rpn_sample[0],
      *(dict(zip(names, numbers, strict=True))
        for numbers in zip(config.rpn_proposals_train, config.rpn_proposals_test, strict=True)),
      config.rpn_nms_iou)
    self.roi_heads = roi_heads.RoIHeads(
      MultiScaleRoIAlign(['0', '1', '2', '3'], 7, 2), faster_rcnn.TwoMLPHead(config.width * 49, config.roi_hidden),
      faster_rcnn.FastRCNNPredictor(config.roi_hidden, s.CLASSES + 1), *config.roi_match_iou[::-1],
      config.roi_sample[0], config.roi_sample[1] / config.roi_sample[0], None, config.min_score, config.roi_nms_iou,
      config.max_detections)
    self.load_state_dict({key: torch.tensor(s.weight(key, tuple(value.shape)))
                          for key, value in self.state_dict().items()})


def record():
  """{name: array}, boxes and deltas rows first, feature maps (B, H, W, C)."""
  head = Head(s.CONFIG)
  features = OrderedDict((str(index), torch.tensor(values.transpose(0, 3, 1, 2)))
                         for index, values in enumerate(s.features()))
  images = ImageList(torch.zeros(s.BATCH, 1, *s.SIZE), [s.SIZE] * s.BATCH)
  targets = [{'boxes': torch.tensor(swap(np.reshape(np.float32(boxes), (-1, 4)))),
              'labels': torch.tensor(classes, dtype=torch.int64) + 1}
             for boxes, classes in zip(s.BOXES, s.CLASS_IDS, strict=True)]
  kept = {}
  with torch.no_grad():
    maps = head.fpn(features)
    levels = list(maps.values())
    kept['maps'] = np.concatenate([level.permute(0, 2, 3, 1).reshape(s.BATCH, -1) for level in levels], axis=1)
    kept['anchors'] = swap(head.rpn.anchor_generator(images, levels)[0].numpy())
    objectness, deltas = rpn.concat_box_prediction_layers(*head.rpn.head(levels))
    kept['objectness'] = objectness.reshape(s.BATCH, -1).numpy()
    kept['codes'] = swap(deltas.reshape(s.BATCH, -1, 4).numpy())
    rois = [torch.tensor(swap(rows)) for rows in s.rois()]
    aligned = head.roi_heads.box_roi_pool(maps, rois, images.image_sizes)
    kept['aligned'] = aligned.permute(0, 2, 3, 1).reshape(s.BATCH, -1, 7, 7, s.CONFIG.width).numpy()
    logits, deltas = head.roi_heads.box_predictor(head.roi_heads.box_head(aligned))
    kept['logits'] = logits.reshape(s.BATCH, -1, s.CLASSES + 1).numpy()
    kept['box_codes'] = swap(deltas.reshape(s.BATCH, -1, s.CLASSES + 1, 4).numpy())
    head.eval()
    proposals, _ = head.rpn(images, maps)
    found, _ = head.roi_heads(maps, proposals, images.image_sizes)
    head.train()
    proposals_in_training, losses = head.rpn(images, maps, targets)
    _, more = head.roi_heads(maps, proposals_in_training, images.image_sizes, targets)
  for row, (own, detections) in enumerate(zip(proposals, found, strict=True)):
    kept[f'proposals {row}'] = swap(own.numpy())
    kept[f'boxes {row}'] = swap(detections['boxes'].numpy())
    kept[f'kind {row}'] = detections['labels'].numpy() - 1
    kept[f'score {row}'] = detections['scores'].numpy()
  return kept | {name: value.numpy() for name, value in (losses | more).items()}


if __name__ == '__main__':
  kept = record()
  for name in ('maps', 'objectness', 'aligned'):
    kept[name] = s.draw.sample(kept[name], 8192)
  kept['codes'] = kept['codes'][:, ::7]
  np.savez_compressed(s.FIXTURE, **kept)
