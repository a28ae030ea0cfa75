"""Models of every kind of task with drawn weights, as a run would have trained them; nothing is trained."""

import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import common, pretrain, tasks
from mtpret_jax.export.trained import Trained
from mtpret_jax.models.torchvision_names import (
  DENSE,
  count_dilations,
  from_torch,
  name_head,
  name_in_torch,
  torch_shape,
)
from mtpret_jax.objectives.modules import split_weights
from mtpret_jax.objectives.multitask import TRUNK, build_modules
from mtpret_jax.tasks.fitted import FittedTask
from tests.reference import densenet_setting, draw
from tests.support.small_runs import make_finetune

TASK = 'drawn'
ABOUT = {
  'classification': {'findings': ['opacity', 'effusion', 'nodule'], 'relation': 'independent'},
  'regression': {'value': {'name': 'bone age', 'unit': 'months'}},
  'segmentation': {'mask': ['background', 'lung', 'heart']},
  'detection': {'box_classes': ['active', 'latent']}}
SIZE, VIEW = 74, 64  # px
# Last layers: logits are of the order of one, boxes stay near their anchors and scores below one.
SCALES = {'classifier.4.weight': 0.01, 'bbox_pred': 0.1, 'cls_logits': 0.3, 'cls_score': 2.0}


def make_head(kind, **changes):
  """The config of a small head; torchvision's numbers with `stock=True`."""
  stock = changes.pop('stock', False)
  if kind == 'segmentation':
    head = common.deeplab_v3()
    head.update({} if stock else dict(width=16, dilations=(1, 2)))
  elif kind == 'detection':
    head = common.faster_rcnn(VIEW)
    head.update({} if stock else dict(width=8, roi_hidden=24, rpn_proposals_test=(60, 50), max_detections=20))
    head.anchor_sizes = ((6,), (10,), (18,), (30,), (48,))
  else:
    return ConfigDict({'mean': 120.0, 'deviation': 40.0}) if kind == 'regression' else None
  head.update(changes)
  return head


def make_trained(kind, trunk='resnet18', relation='independent', make_leaf=None, about=None, flips=False, **head):
  """The `Trained` of a run of stage 3 of this kind, or of stage 1 if it is 'trunk'.

  `about`: in place of that in ABOUT. `flips`: whether predictions are means of an image and its mirror image.
  `make_leaf`: (torchvision's name, shape) -> a leaf; drawn by default, which takes seconds for a large head.
  """
  make_leaf = make_leaf or draw_leaf
  config = pretrain.get_config('smoke') if kind == 'trunk' else make_finetune()
  config.trunk = trunk
  with config.unlocked():
    config.flips = flips
  if kind == 'trunk':
    config.data.size, config.augment.size, config.data.datasets = SIZE, VIEW, ('mura',)
    parts, fitted = {}, {}
  else:
    about = dict(about or ABOUT[kind]) | ({'relation': relation} if kind == 'classification' else {})
    dataset = {'classification': 'mura', 'regression': 'rsna_bone_age', 'segmentation': 'lung_masks',
               'detection': 'tbx11k'}[kind]
    fitted = {TASK: FittedTask(kind, dataset, about, make_head(kind, **head), SIZE, VIEW)}
    config.tasks = tasks.embedded([{'mura': 'abnormality', 'rsna_bone_age': 'bone_age', 'lung_masks': 'lung',
                                    'tbx11k': 'tuberculosis'}[dataset]], steps=2)
    config.tasks = ConfigDict({TASK: next(iter(config.tasks.values()))})
    config.tasks[TASK].update(size=SIZE)
    config.tasks[TASK].augment.size = VIEW
    config.data.datasets = (dataset,)
    parts = {TASK: fitted[TASK].make_model()}
  params, stats = jax.eval_shape(lambda: split_weights(build_modules(config, parts, jax.random.key(0))))
  branches = count_dilations(params.get(TASK, {}))

  def draw_trunk(path, leaf):
    return make_leaf(name_in_torch(path), leaf)

  def draw_head(path, leaf):
    return make_leaf(name_head(kind, path, branches), leaf)

  drawn = [{part: jax.tree.map_with_path(draw_trunk if part == TRUNK else draw_head, leaves)
            for part, leaves in tree.items()} for tree in (params, stats)]
  if kind != 'trunk':
    drawn[1][TRUNK] = {TASK: drawn[1][TRUNK]}  # running statistics are kept by task
  return Trained(pathlib.Path('runs/drawn'), config, 'best', 12, *drawn, fitted)


def draw_leaf(name, leaf):
  """A leaf of ours, drawn by its name in torchvision."""
  scale = next((value for key, value in SCALES.items() if key in name), 1.0)
  weight = densenet_setting.weight if name.startswith(DENSE) else draw.weight
  return from_torch(weight(name, torch_shape(leaf.shape)) * scale, name)


def make_zeros(name, leaf):
  return np.zeros(leaf.shape, np.float32)
