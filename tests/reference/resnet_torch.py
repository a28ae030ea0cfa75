"""torchvision's ResNets with random weights and grey images.

`python -m tests.reference.resnet_torch` records a sample of the outputs in resnet.npz, for
`tests/models/test_resnet.py`. Needs torch and torchvision.
"""

import pathlib

import numpy as np
import torch
import torchvision

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('resnet.npz')
SHAPE = (4, 1, 64, 64)


def build(name):
  """torchvision's `name` with three input channels; every parameter and running statistic is drawn by its name."""
  model = torchvision.models.get_model(name)
  drawn = {key: torch.tensor(draw.weight(key, tuple(value.shape)))
           for key, value in model.state_dict().items() if value.ndim}
  model.load_state_dict(drawn, strict=False)
  return model


@torch.no_grad()
def features(model, images_B1HW, *, training):
  """The outputs of layer1 to layer4 as (B, H, W, C); the grey images are repeated over three channels."""
  model.train(training)
  out = torch.tensor(images_B1HW).expand(-1, 3, -1, -1)
  out = model.maxpool(model.relu(model.bn1(model.conv1(out))))
  maps = []
  for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
    out = layer(out)
    maps.append(out.permute(0, 2, 3, 1).numpy())
  return maps


def running_statistics(model):
  """{name: array} of all running means and variances."""
  return {name: value.numpy() for name, value in model.state_dict().items() if 'running' in name}


def record():
  images = draw.normal('images', SHAPE)
  kept = {}
  for name in ('resnet18', 'resnet34', 'resnet50'):
    model = build(name)
    for mode in ('inference', 'training'):  # in this order: training moves the running statistics
      for stage, values in enumerate(features(model, images, training=mode == 'training')):
        kept[f'{name}/{mode}/{stage}'] = draw.sample(values)
    statistics = running_statistics(model)
    kept[f'{name}/statistics'] = draw.sample(np.concatenate([statistics[key] for key in sorted(statistics)]), 4096)
  np.savez_compressed(FIXTURE, **kept)


if __name__ == '__main__':
  record()
