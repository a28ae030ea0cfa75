"""torchvision's DeepLab-V3 on a ResNet-50, with random weights and grey images.

`python -m tests.reference.deeplab_torch` records a sample of its outputs in deeplab.npz. Needs torch and torchvision.
"""

import numpy as np
import torch
from torchvision.models.segmentation import deeplabv3_resnet50

from tests.reference import draw
from tests.reference.deeplab_setting import CLASSES, FIXTURE, MODES, SIZE, images, weight


def build():
  """One grey input channel, no dropout; every parameter and running statistic is drawn by its name."""
  model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)
  model.backbone.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
  model.load_state_dict({key: torch.tensor(weight(key, tuple(value.shape)))
                         for key, value in model.state_dict().items() if value.ndim}, strict=False)
  model.classifier[0].project[3].p = 0.0
  return model


@torch.no_grad()
def run(model, mode):
  """(last map of the dilated trunk as (B, h, w, C), logits as (B, H, W, T))."""
  model.train(mode == 'training')
  batch = torch.tensor(images())
  last = model.backbone(batch)['out']
  logits = torch.nn.functional.interpolate(model.classifier(last), size=SIZE, mode='bilinear', align_corners=False)
  return last.permute(0, 2, 3, 1).numpy(), logits.permute(0, 2, 3, 1).numpy()


if __name__ == '__main__':
  kept = {}
  for mode in MODES:
    kept[f'{mode}/map'], kept[f'{mode}/logits'] = (draw.sample(values, 4096) for values in run(build(), mode))
  np.savez_compressed(FIXTURE, **kept)
