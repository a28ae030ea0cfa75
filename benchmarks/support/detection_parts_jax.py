"""The parts of our Faster R-CNN, for `benchmarks/detection_parts.py`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.models import torchvision_names
from mtpret_jax.models.detection import faster_rcnn
from mtpret_jax.models.detection.anchors import make_anchors
from mtpret_jax.models.detection.roi_align import roi_align
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.tasks.detection import DETECTION, compute_loss

Programs = dict[str, tuple[Any, tuple]]  # {part: (jitted program, its inputs)}


class Detector:
  """Trunk and head with drawn weights. `params` has the keys 'trunk' and 'head'."""

  def __init__(self, trunk: str, classes: int, config: ConfigDict, draw: Callable) -> None:
    """`draw(name, shape)` gives each array by its name and shape in torchvision."""
    def make() -> dict[str, Any]:
      rngs = nnx.Rngs(0)
      body = ResNet(trunk, rngs=rngs)
      return {'trunk': body, 'head': faster_rcnn.FasterRCNN(body.widths, classes, config, rngs=rngs)}

    def draw_leaf(path: tuple, leaf: Any) -> jax.Array:
      part, *rest = path
      name = (torchvision_names.TRUNK_PREFIX['detection'] + torchvision_names.name_in_torch(tuple(rest))
              if part.key == 'trunk' else torchvision_names.name_head('detection', tuple(rest)))
      return jnp.asarray(torchvision_names.from_torch(draw(name, torchvision_names.torch_shape(leaf.shape)), name))

    split: dict[str, Any] = {part: nnx.split(module, nnx.Param, nnx.BatchStat)
                             for part, module in nnx.eval_shape(make).items()}
    self.graphs = {part: graph for part, (graph, _, _) in split.items()}
    self.params, self.stats = (jax.tree.map_with_path(draw_leaf, {
      part: nnx.to_pure_dict(halves[index]) for part, halves in split.items()}) for index in (1, 2))

  def run_trunk(self, params: Any, images_BHW1: jax.Array, groups: int | None) -> list[jax.Array]:
    return nnx.merge(self.graphs['trunk'], params['trunk'], self.stats['trunk'])(images_BHW1, groups=groups)

  def make_head(self, params: Any) -> faster_rcnn.FasterRCNN:
    return nnx.merge(self.graphs['head'], params['head'], self.stats['head'])


def list_programs(detector: Detector, classes: int, config: ConfigDict, images_BHW1: np.ndarray, boxes_BM4: np.ndarray,
                  class_BM: np.ndarray, slots: int, only: str = '') -> Programs:
  """Every part and the whole, in training and in inference, or only those whose name has the word `only`. In training,
  a part that learns returns its gradient too.

  Boxes are px, rows first; they get `slots` slots an image.
  """
  empty = (0, 0), (0, slots - boxes_BM4.shape[1])
  scale = np.array([*images_BHW1.shape[1:3]] * 2, np.float32)
  batch = jax.tree.map(jnp.asarray, {
    'image': images_BHW1, 'valid': np.ones(len(class_BM), bool), 'boxes': np.pad(boxes_BM4 / scale, (*empty, (0, 0))),
    'class_id': np.pad(class_BM, empty, constant_values=-1)})
  task = DETECTION.make_model({'box_classes': [str(index) for index in range(classes)]}, config)

  def apply(params: Any, batch: Mapping, *, training: bool) -> Any:
    features = detector.run_trunk(params, batch['image'], 1 if training else None)
    return task.apply(detector.make_head(params), features, batch, groups=None,
                      rng=jax.random.key(0) if training else None)

  def compute_mean_loss(params: Any, batch: Mapping) -> jax.Array:
    total, count = task.loss(apply(params, batch, training=True), batch)
    return total / count

  whole: dict[str, Callable] = {'training': jax.value_and_grad(compute_mean_loss),
                                'inference': functools.partial(apply, training=False)}
  programs: Programs = {}
  for mode in whole if only in ('', 'whole') else [only]:
    parts = {} if only == 'whole' else list_parts(detector, config, batch, training=mode == 'training')
    parts['whole'] = jax.jit(whole[mode]), (detector.params, batch)
    programs |= {f'{mode}: {name}': program for name, program in parts.items()}
  return programs


def list_parts(detector: Detector, config: ConfigDict, batch: Mapping, *, training: bool) -> Programs:
  """Each part on inputs that are computed here once. A part gets them as arguments, because XLA would compute ahead of
  time what depends on constants only."""
  programs: Programs = {}

  def run(name: str, part: Callable, inputs: tuple, fixed: tuple = ()) -> Any:
    """part(*inputs, *fixed), which is added to the programs, in training with the gradient for `inputs`."""
    programs[name] = jax.jit(differentiate(part, len(inputs)) if training and inputs else part), (*inputs, *fixed)
    return jax.jit(part)(*inputs, *fixed)

  size, params, class_BM = batch['image'].shape[1:3], detector.params, batch['class_id']
  boxes_BM4 = batch['boxes'] * jnp.float32([*size, *size])[None, None]
  limits = config.rpn_proposals_train if training else config.rpn_proposals_test
  features = run('trunk', lambda params, images: detector.run_trunk(params, images, 1 if training else None),
                 (params,), (batch['image'],))
  maps = run('FPN', lambda params, features: detector.make_head(params).fpn(features), (params, features))
  objectness_BA, deltas_BA4 = run('RPN head', lambda params, maps: detector.make_head(params).rpn(maps), (params, maps))
  counts = faster_rcnn.count_anchors(maps, detector.make_head(params).rpn)

  def anchors() -> jax.Array:  # a constant of each program, as in the whole step
    return jnp.asarray(make_anchors(size, [level.shape[1:3] for level in maps], config.anchor_sizes,
                                    config.aspect_ratios))

  rois_BR4, valid_BR = run('proposals', lambda objectness_BA, deltas_BA4: faster_rcnn.propose(
    objectness_BA, deltas_BA4, anchors(), counts, size, limits, config.rpn_nms_iou), (), (objectness_BA, deltas_BA4))
  if training:
    rngs = faster_rcnn.fold_in_rows(jax.random.key(0), len(class_BM))
    index_BS, rpn = run('RPN targets', lambda boxes, classes, rngs: faster_rcnn.target_anchors(
      anchors(), boxes, classes, rngs, config), (), (boxes_BM4, class_BM, rngs))
    rois_BR4, roi = run('RoI targets', lambda rois, valid, boxes, classes, rngs: faster_rcnn.target_rois(
      rois, valid, boxes, classes, rngs, config), (), (rois_BR4, valid_BR, boxes_BM4, class_BM, rngs))
  aligned = run('RoI align', lambda maps, rois_BR4: roi_align(maps[:-1], rois_BR4, faster_rcnn.CELLS), (maps,),
                (rois_BR4,))
  logits, deltas = run('RoI head', lambda params, aligned: detector.make_head(params).roi_head(aligned),
                       (params, aligned))
  if training:
    def lose(outputs: tuple, index_BS: jax.Array, rpn: dict, roi: dict, rows_B: jax.Array) -> jax.Array:
      objectness_BA, deltas_BA4, logits, deltas = outputs
      rpn = rpn | faster_rcnn.take_samples(objectness_BA, deltas_BA4, index_BS)
      return compute_loss({'rpn': rpn, 'roi': roi | {'logits': logits, 'deltas': deltas}}, rows_B)[0]
    run('losses', lose, ((objectness_BA, deltas_BA4, logits, deltas),), (index_BS, rpn, roi, batch['valid']))
  else:
    run('detections', jax.vmap(functools.partial(faster_rcnn.select_detections, image_size=size, config=config)),
        (), (logits, deltas, rois_BR4, valid_BR))
  return programs


def differentiate(part: Callable, count: int) -> Callable:
  """A function that returns the outputs of `part` and the gradient of their sum for its first `count` inputs."""
  def run(*inputs: Any) -> tuple:
    outputs, pull = jax.vjp(lambda *first: part(*first, *inputs[count:]), *inputs[:count])
    return outputs, pull(jax.tree.map(jnp.ones_like, outputs))
  return run
