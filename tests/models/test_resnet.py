"""The trunk equals torchvision's ResNet: the same features and running statistics from the same weights.

`tests/reference/resnet_torch.py` recorded a sample of torchvision's numbers in resnet.npz; the tests marked
`reference` run torchvision itself and compare everything.
"""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mtpret_jax.models import torchvision_weights
from mtpret_jax.models.resnet import ResNet
from tests.reference import draw
from tests.support.drawn import make_state_dict
from tests.support.paths import ROOT

TOLERANCE = 1e-4  # absolute, f32; the features are of the order of one
TRUNKS = ('resnet18', 'resnet34', 'resnet50')
FIXTURE = ROOT / 'tests/reference/resnet.npz'


@functools.cache
def our_features(name, mode):
  """The four feature maps of the fixture's images, and the running statistics after the pass."""
  graph, _, _ = nnx.split(nnx.eval_shape(lambda: ResNet(name, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
  images_BHW1 = draw.normal('images', (4, 1, 64, 64)).transpose(0, 2, 3, 1)

  @jax.jit
  def run(params, stats, images_BHW1):
    trunk = nnx.merge(graph, params, stats)
    maps = trunk(images_BHW1, groups=1 if mode == 'training' else None)
    return maps, nnx.to_pure_dict(nnx.state(trunk, nnx.BatchStat))

  maps, stats = run(*torchvision_weights.import_trunk(make_state_dict(name), name), images_BHW1)
  statistics = {torchvision_weights.name_in_torch(path): np.asarray(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(stats)}
  return maps, statistics


@pytest.mark.parametrize('mode', ('inference', 'training'))
@pytest.mark.parametrize('name', TRUNKS)
def test_features_of_every_stage_equal_torchvisions(name, mode):
  maps, _ = our_features(name, mode)
  with np.load(FIXTURE) as recorded:
    for stage, ours in enumerate(maps):
      np.testing.assert_allclose(draw.sample(ours), recorded[f'{name}/{mode}/{stage}'], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('name', TRUNKS)
def test_running_statistics_after_a_step_equal_torchvisions(name):
  _, statistics = our_features(name, 'training')
  ours = draw.sample(np.concatenate([statistics[key] for key in sorted(statistics)]), 4096)
  with np.load(FIXTURE) as recorded:
    np.testing.assert_allclose(ours, recorded[f'{name}/statistics'], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('name', TRUNKS)
def test_inference_does_not_change_the_running_statistics(name):
  _, statistics = our_features(name, 'inference')
  for key, value in statistics.items():
    np.testing.assert_array_equal(value, draw.weight(key, value.shape))


@pytest.mark.reference
@pytest.mark.parametrize('name', TRUNKS)
def test_torchvision_itself_gives_the_same_features(name):
  pytest.importorskip('torchvision')
  from tests.reference import resnet_torch
  model = resnet_torch.build(name)
  images_B1HW = draw.normal('images', resnet_torch.SHAPE)
  for mode in ('inference', 'training'):
    theirs = resnet_torch.features(model, images_B1HW, training=mode == 'training')
    maps, statistics = our_features(name, mode)
    for stage, (ours, reference) in enumerate(zip(maps, theirs, strict=True)):
      worst = np.abs(np.asarray(ours) - reference).max()
      print(f'{name} {mode} stage {stage + 1}: largest difference {worst:.1e} of at most {np.abs(reference).max():.1f}')
      assert worst <= TOLERANCE
  for key, reference in resnet_torch.running_statistics(model).items():
    np.testing.assert_allclose(statistics[key], reference, rtol=0, atol=TOLERANCE)
