"""The trunk equals torchvision's DenseNet: the same maps, running statistics and gradients from the same weights.

`tests/reference/densenet_torch.py` recorded a sample of torchvision's numbers for a small DenseNet in densenet.npz. The
tests marked `reference` run torchvision itself, with DenseNet-121, and compare everything.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtpret_jax.models import densenet, torchvision_weights, weight_names
from mtpret_jax.models.detection.fpn import upsample
from mtpret_jax.models.pool import pool_average
from mtpret_jax.models.trunk import TRUNKS, make_trunk
from tests.reference import draw
from tests.reference.densenet_setting import DEPTHS, FIXTURE, GROWTH, NAME, SHAPE, weight
from tests.support.drawn import make_state_dict

TOLERANCE = 1e-4  # absolute, f32; the maps are of the order of one
MODES = ('inference', 'training')


@pytest.fixture(autouse=True, scope='module')
def small_trunk():
  densenet.LAYERS[NAME] = (GROWTH, DEPTHS)
  yield
  del densenet.LAYERS[NAME]


def make_weights(name):
  return torchvision_weights.import_trunk(make_state_dict(name, make=weight), name)


@functools.cache
def our_results(name, mode):
  """(four maps, running statistics after the pass), and while training the gradients of the mean squares of all maps;
  both dicts under torchvision's names."""
  graph, _, _ = nnx.split(nnx.eval_shape(lambda: make_trunk(name, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
  images_BHW1 = draw.normal('images', SHAPE).transpose(0, 2, 3, 1)

  def run(params, stats):
    trunk = nnx.merge(graph, params, stats)
    maps = trunk(images_BHW1, groups=1 if mode == 'training' else None)
    return sum(jnp.square(each).mean() for each in maps), (maps, nnx.to_pure_dict(nnx.state(trunk, nnx.BatchStat)))

  if mode == 'training':
    gradients, (maps, stats) = jax.jit(jax.grad(run, has_aux=True))(*make_weights(name))
  else:
    (_, (maps, stats)), gradients = jax.jit(run)(*make_weights(name)), {}
  named = [{torchvision_weights.name_in_torch(path): torchvision_weights.to_torch(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (stats, gradients)]
  return maps, *named


@pytest.mark.parametrize('mode', MODES)
def test_maps_statistics_and_gradients_equal_torchvisions(mode):
  maps, statistics, gradients = our_results(NAME, mode)
  with np.load(FIXTURE) as recorded:
    for stage, ours in enumerate(maps):
      np.testing.assert_allclose(draw.sample(ours), recorded[f'{mode}/{stage}'], rtol=0, atol=TOLERANCE)
    for what, ours in {'statistics': statistics, 'gradients': gradients}.items() if mode == 'training' else ():
      values = draw.sample(np.concatenate([ours[key].ravel() for key in sorted(ours)]), 4096)
      np.testing.assert_allclose(values, recorded[f'{mode}/{what}'], rtol=0, atol=TOLERANCE)


def test_the_maps_have_the_channels_that_heads_are_told():
  trunk = nnx.eval_shape(lambda: make_trunk('densenet121', rngs=nnx.Rngs(0)))
  assert trunk.widths == (256, 512, 1024, 1024) and trunk.channels == 1024
  assert [each.shape[-1] for each in our_results(NAME, 'inference')[0]] == list(
    nnx.eval_shape(lambda: make_trunk(NAME, rngs=nnx.Rngs(0))).widths)


def rename(weights, pattern, new):
  return {re.sub(pattern, new, name): value for name, value in weights.items()}


# What others save, given torchvision's state dict `w`.
SAVED = {
  "torchvision's published weights": lambda w: rename(w, r'(denselayer\d+\.)(norm|conv)(\d)', r'\1\2.\3'),
  'torchxrayvision': lambda w: w | {'op_threshs': np.ones(18, np.float32), 'classifier.bias': np.ones(3, np.float32)},
  'CheXNet': lambda w: rename(w, '^', 'state_dict.module.densenet121.') | {
    'state_dict.module.densenet121.classifier.0.weight': np.ones((14, 9), np.float32)},
  'MONAI': lambda w: rename(w, r'(denselayer\d+\.)', r'\1layers.') | {'class_layers.out.bias': np.ones(3, np.float32)},
  'features alone': lambda w: rename(w, r'^features\.', 'backbone.') | {'fc.bias': np.ones(3, np.float32)}}


@pytest.mark.parametrize('library', SAVED)
def test_a_densenet_is_found_under_the_names_of_other_libraries(library):
  weights = make_state_dict(NAME)
  found = weight_names.select_encoder(SAVED[library](weights))
  assert found.keys() == weights.keys() and all(found[name] is weights[name] for name in weights)


def test_export_then_import_changes_no_bit():
  grey = make_state_dict(NAME, channels=1)
  params, stats = torchvision_weights.import_trunk(grey, NAME)
  written = torchvision_weights.name_trunk(params, stats, 1)
  assert written.keys() == grey.keys()
  for name, value in written.items():
    np.testing.assert_array_equal(value, grey[name])


def test_weights_of_another_trunk_are_named():
  with pytest.raises(ValueError, match=f'these are the weights of a {NAME}: set --config.trunk={NAME}'):
    torchvision_weights.import_trunk(make_state_dict(NAME), 'resnet18')
  deeper = rename(make_state_dict(NAME), r'denseblock2\.denselayer1', 'denseblock2.denselayer3')
  with pytest.raises(ValueError, match='its stages have 2-1-1-1 blocks .*densenet121 6-12-24-16'):
    torchvision_weights.import_trunk(deeper, 'densenet121')


@pytest.mark.parametrize('stride', (16, 8))
def test_a_dilated_trunk_keeps_the_size_of_the_last_maps(stride):
  graph, *_ = nnx.split(nnx.eval_shape(lambda: make_trunk(NAME, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
  images = jnp.zeros((1, 75, 64, 1))
  maps = jax.eval_shape(lambda *weights: nnx.merge(graph, *weights)(images, groups=None, output_stride=stride),
                        *make_weights(NAME))
  assert [each.shape[1:3] for each in maps] == [(19, 16), (9, 8), *[(9, 8), (9, 8)] * (stride == 8),
                                                *[(4, 4), (4, 4)] * (stride == 16)]


def test_the_average_pool_drops_an_odd_row_and_keeps_a_single_one():
  images = jnp.arange(15.0).reshape(1, 5, 3, 1)
  np.testing.assert_array_equal(pool_average(images)[0, :, :, 0], [[2], [8]])
  np.testing.assert_array_equal(pool_average(images[:, :1])[0, :, :, 0], [[0.5]])


@pytest.mark.parametrize('coarse', (1, 2, 4, 5))
@pytest.mark.parametrize('rest', (-1, 0, 1))
def test_the_feature_pyramid_enlarges_a_halved_odd_size_as_torchvision(coarse, rest):
  fine = 2 * coarse + rest
  rows = upsample(jnp.arange(coarse).reshape(1, coarse, 1, 1), (fine, 1))[0, :, 0, 0]
  np.testing.assert_array_equal(rows, np.arange(fine) * coarse // fine)  # interpolate(mode='nearest')


def test_the_names_of_trunks_begin_with_the_resnets():
  ours = [name for name in TRUNKS if name.startswith(('resnet', 'densenet'))]  # tests add small trunks
  assert ours == ['resnet18', 'resnet34', 'resnet50', 'densenet121']


@pytest.mark.reference
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', ('densenet121', NAME))
def test_torchvision_itself_gives_the_same(name, mode):
  pytest.importorskip('torchvision')
  from tests.reference import densenet_torch
  for ours, theirs in zip(our_results(name, mode), densenet_torch.run(name, mode), strict=True):
    if not ours:
      continue  # no gradients in inference
    keys = theirs if isinstance(theirs, dict) else range(4)
    pairs = [(ours[key], theirs[key]) for key in keys]
    worst = max(np.abs(np.asarray(mine) - other).max() for mine, other in pairs)
    print(f'{name} {mode}: largest difference {worst:.1e} of {max(np.abs(other).max() for _, other in pairs):.2f}')
    assert len(ours) == len(theirs) and worst <= TOLERANCE
