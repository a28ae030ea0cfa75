"""DeepLab-V3 equals torchvision's: the same dilated maps and logits from the same weights.

`tests/reference/deeplab_torch.py` recorded a sample of torchvision's numbers in deeplab.npz; the test marked
`reference` runs torchvision itself and compares everything.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtpret_jax.models import torchvision_names, torchvision_weights
from mtpret_jax.models.deeplab import DeepLab, dropout
from mtpret_jax.models.resnet import ResNet
from tests.reference import draw
from tests.reference.deeplab_setting import BATCH, CLASSES, DILATIONS, FIXTURE, MODES, SIZE, WIDTH, images, weight
from tests.support.drawn import make_state_dict

TOLERANCE = 1e-4  # absolute, f32; the logits are of the order of one


def split(module):
  graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
  return graph, *(nnx.to_pure_dict(state) for state in states)


def draw_head(path, leaf):
  """The leaf of the head at `path`, drawn by its name in torchvision."""
  name = torchvision_names.name_head('segmentation', path)
  return torchvision_names.from_torch(weight(name, torchvision_names.torch_shape(leaf.shape)), name)


@functools.cache
def our_maps(mode):
  """(last map of the dilated trunk, logits) for the fixture's images."""
  groups = 1 if mode == 'training' else None
  trunk_graph, *_ = split(nnx.eval_shape(lambda: ResNet('resnet50', rngs=nnx.Rngs(0))))
  head_graph, *head = split(nnx.eval_shape(
    lambda: DeepLab(2048, CLASSES, width=WIDTH, dilations=DILATIONS, rngs=nnx.Rngs(0))))

  @jax.jit
  def run(trunk, head, batch):
    features = nnx.merge(trunk_graph, *trunk)(batch, groups=groups, output_stride=8)
    return features[-1], nnx.merge(head_graph, *head)(features, batch.shape[1:3], groups=groups)

  trunk = torchvision_weights.import_trunk(make_state_dict('resnet50', channels=1), 'resnet50')
  head = [jax.tree.map_with_path(draw_head, tree) for tree in head]
  return run(trunk, head, images().transpose(0, 2, 3, 1))


@pytest.mark.parametrize('mode', MODES)
def test_dilated_maps_and_logits_equal_torchvisions(mode):
  last, logits = our_maps(mode)
  assert last.shape == (BATCH, 13, 25, 2048) and logits.shape == (BATCH, *SIZE, CLASSES)
  with np.load(FIXTURE) as recorded:
    np.testing.assert_allclose(draw.sample(last, 4096), recorded[f'{mode}/map'], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(draw.sample(logits, 4096), recorded[f'{mode}/logits'], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('stride', (16, 8))
def test_every_second_pixel_of_a_dilated_resnet18_equals_the_strided_map(stride):
  graph, *_ = split(nnx.eval_shape(lambda: ResNet('resnet18', rngs=nnx.Rngs(0))))

  @functools.partial(jax.jit, static_argnums=1)
  def run(trunk, stride):
    images = draw.normal('images', (2, 1, 96, 72)).transpose(0, 2, 3, 1)
    return nnx.merge(graph, *trunk)(images, groups=None, output_stride=stride)

  trunk = torchvision_weights.import_trunk(make_state_dict('resnet18', channels=1), 'resnet18')
  for own, dilated, strided in zip((4, 8, 16, 32), run(trunk, stride), run(trunk, 32), strict=True):
    kept = max(own // stride, 1)
    assert dilated.shape[1] == -(-96 // min(own, stride))
    np.testing.assert_allclose(dilated[:, ::kept, ::kept], strided, rtol=0, atol=TOLERANCE)


def test_dropout_keeps_half_of_the_values_and_the_mean():
  ones = jnp.ones((2, 31, 37, 3))
  dropped = dropout(ones, jax.random.key(0))
  assert set(np.unique(dropped)) == {0, 2}
  np.testing.assert_allclose(dropped.mean(), 1, atol=0.03)


@pytest.mark.reference
def test_torchvision_itself_gives_the_same_logits():
  pytest.importorskip('torchvision')
  from tests.reference import deeplab_torch
  for mode in MODES:
    for ours, theirs in zip(our_maps(mode), deeplab_torch.run(deeplab_torch.build(), mode), strict=True):
      worst = np.abs(np.asarray(ours) - theirs).max()
      print(f'{mode}: largest difference {worst:.1e} of at most {np.abs(theirs).max():.1f}')
      assert worst <= TOLERANCE
