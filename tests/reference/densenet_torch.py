"""torchvision's DenseNet with drawn weights and grey images.

`python -m tests.reference.densenet_torch` records a sample of its outputs in densenet.npz, for
`tests/models/test_densenet.py`. Needs torch and torchvision.
"""

import numpy as np
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from tests.reference import draw
from tests.reference.densenet_setting import DEPTHS, FIXTURE, GROWTH, NAME, SHAPE, weight


def build(name):
  """torchvision's `name`, or the small one, with three input channels and every array drawn by its name."""
  model = torchvision.models.DenseNet(GROWTH, DEPTHS) if name == NAME else torchvision.models.get_model(name)
  drawn = {key: torch.tensor(weight(key, tuple(value.shape)))
           for key, value in model.state_dict().items() if value.ndim}
  model.load_state_dict(drawn, strict=False)
  return model


def run(name, mode):
  """([four maps as (B, H, W, C)], running statistics, gradients), as `our_results` of the test. The gradient of the
  stem is that of a grey image: the mean over its input channels."""
  model = build(name)
  maps = create_feature_extractor(model, {f'features.transition{stage}.relu': str(stage) for stage in (1, 2, 3)}
                                  | {'relu': '4'}).train(mode == 'training')(
    torch.tensor(draw.normal('images', SHAPE)).expand(-1, 3, -1, -1))
  sum(each.square().mean() for each in maps.values()).backward()
  gradients = {key: value.grad.numpy() for key, value in model.named_parameters() if value.grad is not None}
  gradients['features.conv0.weight'] = gradients['features.conv0.weight'].mean(1, keepdims=True)
  statistics = {key: value.numpy() for key, value in model.state_dict().items() if 'running' in key}
  return [each.detach().permute(0, 2, 3, 1).numpy() for each in maps.values()], statistics, gradients


def record():
  kept = {}
  for mode in ('inference', 'training'):
    maps, *named = run(NAME, mode)
    kept |= {f'{mode}/{stage}': draw.sample(values) for stage, values in enumerate(maps)}
    for what, arrays in zip(('statistics', 'gradients'), named, strict=True):
      kept[f'{mode}/{what}'] = draw.sample(np.concatenate([arrays[key].ravel() for key in sorted(arrays)]), 4096)
  np.savez_compressed(FIXTURE, **kept)


if __name__ == '__main__':
  record()
