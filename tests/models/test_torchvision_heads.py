"""Heads keep every bit under torchvision's names; what does not fit is left out or named."""

import functools
import logging
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from mtpret_jax.models import torchvision_names, torchvision_weights, weight_names
from mtpret_jax.objectives.multitask import fill
from mtpret_jax.runtime.initial_weights import read_initial_weights, shape_head
from mtpret_jax.tasks.fitted import FittedTask
from tests.reference import draw
from tests.support import torch_writer
from tests.support.drawn import make_state_dict


def make_task(kind, classes=3, **head):
  names = [f'class {index}' for index in range(classes)]
  about = {'classification': {'findings': names, 'relation': 'independent'}, 'segmentation': {'mask': names},
           'detection': {'box_classes': names}, 'regression': {'value': {'name': 'age', 'unit': 'months'}}}[kind]
  config = {'segmentation': common.deeplab_v3(), 'detection': common.faster_rcnn(96)}.get(kind, ConfigDict())
  config.update(width=8, **head)
  return FittedTask(kind, 'phantoms', about, config if kind in ('segmentation', 'detection') else None, 96, 96)


TASKS = {'classification': make_task('classification'), 'segmentation': make_task('segmentation'),
         'segmentation with four dilations': make_task('segmentation', dilations=(2, 4, 6, 8)),
         'detection': make_task('detection', roi_hidden=16)}


@functools.cache
def draw_head(name):
  """The head of a task, with every number drawn by its name: (params, running statistics)."""
  return jax.tree.map_with_path(lambda path, leaf: draw.weight(jax.tree_util.keystr(path), leaf.shape),
                                shape_head(TASKS[name], 'resnet18'))


def export(name):
  return torchvision_names.export_head(TASKS[name].kind, *draw_head(name))


def make_file(name, prefix=''):
  """A state dict of torchvision's model on a ResNet-18, with counters and a head that we do not have."""
  kind = TASKS[name].kind
  trunk = {f'{torchvision_names.TRUNK_PREFIX[kind]}{key}': value for key, value in make_state_dict('resnet18').items()}
  rest = {'aux_classifier.0.weight': np.ones((2, 512, 3, 3), np.float32)} if kind == 'segmentation' else {
    'roi_heads.mask_predictor.conv5_mask.bias': np.ones(8, np.float32)}
  counter = {'classifier.0.project.1.num_batches_tracked': np.ones(1, np.int64)}
  return {f'{prefix}{key}': value for key, value in (trunk | export(name) | rest | counter).items()}


def assert_trees_equal(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize('name', TASKS)
def test_export_then_import_changes_no_bit(name):
  head, others = torchvision_weights.import_head(export(name), TASKS[name].kind, *shape_head(TASKS[name], 'resnet18'))
  assert not others
  assert_trees_equal(head, draw_head(name))


@pytest.mark.parametrize('name, last', [
  ('segmentation', ['classifier.4']),
  ('detection', ['roi_heads.box_predictor.bbox_pred', 'roi_heads.box_predictor.cls_score'])])
def test_the_last_layers_of_other_classes_are_left_out_and_named(name, last):
  kind = TASKS[name].kind
  more = make_task(kind, classes=5, **({'roi_hidden': 16} if kind == 'detection' else {}))
  (params, stats), others = torchvision_weights.import_head(export(name), kind, *shape_head(more, 'resnet18'))
  assert others == last
  missing = {torchvision_names.name_head(kind, path) for path, leaf in jax.tree_util.tree_leaves_with_path(
    fill(jax.tree.map(lambda leaf: None, shape_head(more, 'resnet18')[0], is_leaf=lambda leaf: hasattr(leaf, 'shape')),
         params), is_leaf=lambda leaf: leaf is None) if leaf is None}
  assert {layer.rpartition('.')[0] for layer in missing} == set(last)
  assert_trees_equal(stats, draw_head(name)[1])


def test_the_rpn_of_other_anchors_is_left_out():
  task = make_task('detection', roi_hidden=16, aspect_ratios=(0.5, 1.0))
  _, others = torchvision_weights.import_head(export('detection'), 'detection', *shape_head(task, 'resnet18'))
  assert others == ['rpn.head.bbox_pred', 'rpn.head.cls_logits']


@pytest.mark.parametrize('name, task, said', [
  ('segmentation', make_task('segmentation', dilations=(2, 4)), r'convs\.3\.1\.weight has shape \(8,\), but must'),
  ('segmentation with four dilations', TASKS['segmentation'], r'classifier\.0\.convs\.4\.'),
  ('detection', make_task('detection', roi_hidden=32), r'fc6\.bias has shape \(16,\), but must have \(32,\)')])
def test_a_head_of_another_size_is_refused(name, task, said):
  with pytest.raises(ValueError, match=said):
    torchvision_weights.import_head(export(name), task.kind, *shape_head(task, 'resnet18'))


@pytest.mark.parametrize('prefix', ['', 'model.', 'state_dict.module.'])
@pytest.mark.parametrize('name', ['segmentation', 'detection'])
def test_a_heads_names_may_have_a_prefix(name, prefix):
  found = weight_names.select_head(make_file(name, prefix), TASKS[name].kind)
  expected = export(name)
  assert {key for key in found if not key.startswith(torchvision_names.OTHER_HEADS)} == expected.keys()
  for other in {'segmentation', 'detection'} - {name}:
    assert not weight_names.select_head(make_file(name, prefix), other)


def test_the_names_of_torchvisions_published_detector_are_read():
  old = {name.replace('.0.weight', '.weight').replace('.0.bias', '.bias') if '_blocks.' in name else
         name.replace('head.conv.0.0.', 'head.conv.'): value for name, value in make_file('detection').items()
         if 'roi_heads.mask' not in name}
  assert {'backbone.fpn.inner_blocks.3.weight', 'rpn.head.conv.bias'} <= old.keys()
  assert weight_names.select_head(old, 'detection').keys() == export('detection').keys()


@pytest.fixture
def make_config(tmp_path):
  def make(name):
    torch_writer.write(tmp_path / 'model.pth', make_file(name))
    return ConfigDict(dict(init='imagenet', init_from=str(tmp_path / 'model.pth'), trunk='resnet18'))
  return make


@pytest.mark.parametrize('name', ['segmentation', 'detection'])
def test_a_run_starts_from_the_head_of_its_kind(name, make_config, caplog):
  tasks = {'own': TASKS[name], 'other': TASKS['classification']}
  with caplog.at_level(logging.INFO):
    weights = read_initial_weights(make_config(name), tasks)
  assert list(weights) == ['trunk', 'own']
  assert re.search(r'trunk: imagenet from \S+, [\d,]*,\d{3} parameters', caplog.text)
  assert re.search(r'head of own: from \S+, [\d,]*,\d{3} parameters', caplog.text)
  assert_trees_equal(weights['own'], draw_head(name))
  assert read_initial_weights(make_config(name)).keys() == {'trunk'}


def test_a_run_is_told_which_layers_start_at_random_and_why(make_config, caplog):
  with caplog.at_level(logging.INFO):
    weights = read_initial_weights(make_config('segmentation'), {'lung': make_task('segmentation', classes=5)})
  assert 'random weights, because its classes or anchors are others: classifier.4' in caplog.text
  assert 'logits' not in weights['lung'][0] and 'aspp' in weights['lung'][0]
  with caplog.at_level(logging.INFO):
    assert 'lung' not in read_initial_weights(make_config('segmentation'), {
      'lung': make_task('segmentation', dilations=(1, 2))})
  assert 'head of lung: not taken from' in caplog.text and 'tasks.lung.head says how large it is' in caplog.text


def test_what_a_file_lacks_keeps_its_random_weights():
  random, given = {'a': {'b': 1, 'c': 2}, 'd': {'e': 3}}, {'a': {'c': 20}}
  assert fill(random, given) == {'a': {'b': 1, 'c': 20}, 'd': {'e': 3}} and random['a']['c'] == 2


@pytest.mark.reference
@pytest.mark.parametrize('name', ['segmentation', 'detection'])
def test_what_torchvision_saves_fills_the_whole_head(name, tmp_path):
  torch = pytest.importorskip('torch')
  pytest.importorskip('torchvision')
  from tests.reference import names_torch
  kind = TASKS[name].kind
  model = names_torch.build({'segmentation': 'deeplabv3_resnet50', 'detection': 'fasterrcnn_resnet50_fpn'}[name])
  torch.save({'model': model.state_dict()}, tmp_path / 'model.pth')
  task = FittedTask(kind, 'phantoms', TASKS[name].about | {'box_classes': ['a', 'b']}, common.deeplab_v3()
                    if kind == 'segmentation' else common.faster_rcnn(800), 800, 800)
  config = ConfigDict(dict(init='other', init_from=str(tmp_path / 'model.pth'), trunk='resnet50'))
  params, stats = read_initial_weights(config, {'own': task})['own']
  theirs = {key: value.numpy() for key, value in model.state_dict().items()
            if key.startswith(torchvision_names.HEAD_PREFIXES[kind]) and not key.endswith('num_batches_tracked')}
  ours = torchvision_names.export_head(kind, params, stats)
  assert ours.keys() == theirs.keys()
  for key, value in theirs.items():
    np.testing.assert_array_equal(ours[key], value)
