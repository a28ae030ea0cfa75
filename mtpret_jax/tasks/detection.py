"""Detection: bounding boxes and their classes, by Faster R-CNN.

Boxes are (y0, x0, y1, x1). They are 0-1 of the image in records, batches and predictions, and pixels inside the model.

Letters: B images, M slots for annotated boxes, N rows of a table, S sampled anchors or proposals, J classes and the
background.
"""

import bisect
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.rules import levels, number, row, sample, span, whole
from mtpret_jax.data.records import name_record, read_text
from mtpret_jax.evaluation.metrics import detection
from mtpret_jax.tasks.sides import find_mirror
from mtpret_jax.tasks.task import About, Row, TaskKind, TaskModel, find_rows

with epy.lazy_imports():
  import jax
  import jax.numpy as jnp
  import optax

  from mtpret_jax.models.detection import faster_rcnn, fusion

# When images that were examined and have no box are used: only in validation and test, or in training too.
NEGATIVES = ('never', 'evaluation', 'always')
SMOOTH_L1_BETA = 1 / 9  # torchvision's, for the box deltas

log = logging.getLogger(__name__)


# Labels


def read_label(about: About, task_config: ConfigDict, record: Mapping) -> Row:
  """`boxes` (M, 4) float32; `class_id` (M,) int32, -1 in empty slots, whose box is 0. M is `task_config.objects`. If an
  image has more boxes, the largest are kept, with a warning."""
  boxes = np.asarray(record['objects']['box'], np.float32).reshape(-1, 4)
  class_id = np.asarray(record['objects']['class_id'], np.int32)
  if not np.isin(class_id, range(len(about['box_classes']))).all():
    raise ValueError(f'{name_record(record)}: boxes have the class ids {class_id.tolist()}, but there are only the '
                     f'classes {about["box_classes"]}, with ids from 0')
  slots = task_config.objects
  if len(boxes) > slots:
    warn_of_many(name_record(record), len(boxes), slots)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = np.sort(np.argsort(-areas, kind='stable')[:slots])
    boxes, class_id = boxes[largest], class_id[largest]
  empty = slots - len(boxes)
  return {'boxes': np.pad(boxes, ((0, empty), (0, 0))), 'class_id': np.pad(class_id, (0, empty), constant_values=-1)}


@functools.cache  # an image recurs in every epoch, but is reported once per process
def warn_of_many(name: str, found: int, slots: int) -> None:
  log.warning('%s has %d boxes; only the %d largest are kept. Raise --config.tasks.TASK.objects to keep all', name,
              found, slots)


def label_shapes(about: About, task_config: ConfigDict) -> dict[str, tuple]:
  return {'boxes': ((task_config.objects, 4), np.float32), 'class_id': ((task_config.objects,), np.int32)}


def find_defect(about: About, task_config: ConfigDict, record: Mapping, split: str) -> str:
  """An image without boxes is used only if it is a negative, and only in the splits that `task_config.negatives` means.
  Any other one may not be annotated: of NIH's chest X-rays only 880 have boxes. torchvision's reference training leaves
  out every image without boxes."""
  if len(record['objects']['class_id']):
    return ''
  uses_negatives = task_config.negatives == 'always' or task_config.negatives == 'evaluation' and split != 'train'
  return '' if uses_negatives and is_negative(about, record) else 'no box'


def is_negative(about: About, record: Mapping) -> bool:
  """Whether an image without boxes is known to show nothing that would have one.

  Its findings say so, if the dataset names findings in `box_negatives`; else it must be among `negative_images`, which
  are sorted. Datasets with neither, which may be prepared by an earlier version, have no negatives.
  """
  if about.get('box_negatives'):
    columns = [about['findings'].index(name) for name in about['box_negatives']]
    label_mask, present = (np.asarray(record[field])[columns] for field in ('label_mask', 'present'))
    return bool(label_mask.all() and not present.any())
  names, image_id = about.get('negative_images', ()), read_text(record['image_id'])
  place = bisect.bisect_left(names, image_id)
  return place < len(names) and names[place] == image_id


def list_classes(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """The classes of boxes."""
  return {name: np.array([class_id in label['objects']['class_id'] for label in labels])
          for class_id, name in enumerate(about['box_classes'])}


def find_split_defect(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> str:
  return '' if any(len(label['objects']['class_id']) for label in labels) else 'has no box'


def fit_slots(task_config: ConfigDict, labels: Sequence[Mapping]) -> ConfigDict:
  """The config with a slot for every box of the image that has most."""
  return ConfigDict({**task_config, 'objects': max([1, *(len(label['objects']['class_id']) for label in labels)])})


def check(name: str, task_config: ConfigDict) -> None:
  if not task_config.objects:
    raise ConfigError(f'tasks.{name}.objects=0 leaves no room for a box', {f'tasks.{name}.objects': 8})


# Model


def make_model(about: About, config: ConfigDict | None) -> TaskModel:
  """Faster R-CNN for `about['box_classes']`; `config` is `task_config.head`. The loss works in training only,
  since anchors and proposals are sampled at random."""
  assert config is not None
  mirror = find_mirror(about['box_classes'])

  def apply(head: Any, features: list, batch: Mapping, *, groups: int | None, rng: Any) -> dict:
    size = batch['image'].shape[1:3]
    scale = jnp.array((*size, *size), jnp.float32)[None, None]
    if rng is None:
      found = head.detect(features, size, config)
      return found | {'boxes': found['boxes'] / scale}
    return head.sample_for_loss(features, size, batch['boxes'] * scale, batch['class_id'], config, rng=rng)

  return TaskModel(
    make_head=lambda trunk, rngs: faster_rcnn.FasterRCNN(trunk.widths, len(about['box_classes']), config, rngs=rngs),
    output_stride=32,
    apply=apply,
    loss=lambda outputs, batch: compute_loss(outputs, find_rows(batch)),
    predict=lambda outputs: outputs,
    mirror=mirror,
    merge=fusion.fuse,
    unmirror=functools.partial(unmirror, mirror))


def unmirror(mirror: tuple[int, ...] | None, predictions: Mapping) -> dict:
  """Boxes of mirrored images where they are in the images."""
  y0, x0, y1, x1 = (predictions['boxes'][..., corner] for corner in range(4))
  class_BM = predictions['class_id']
  if mirror is not None:
    class_BM = jnp.where(class_BM >= 0, jnp.asarray(mirror, jnp.int32)[class_BM], -1)
  return {'boxes': jnp.stack([y0, 1 - x1, y1, 1 - x0], -1), 'class_id': class_BM, 'score': predictions['score']}


def compute_loss(outputs: Mapping, rows_B: 'jax.Array') -> tuple['jax.Array', 'jax.Array']:
  """(sum, count) over the images in `rows_B`: the four losses of Ren et al. 2015 with torchvision's weights. Each is
  a mean over all sampled anchors or proposals of the batch, so it is the same for every image."""
  objectness = optax.sigmoid_binary_cross_entropy
  rpn, roi = outputs['rpn'], outputs['roi']
  total = (average(objectness(rpn['logits'], (rpn['target_class'] > 0).astype(jnp.float32)), rpn, rpn['deltas'], rows_B)
           + average(optax.softmax_cross_entropy_with_integer_labels(roi['logits'], roi['target_class']),
                     roi, pick_class(roi['deltas'], roi['target_class']), rows_B))
  count = rows_B.sum().astype(jnp.float32)
  return total * count, count


def average(class_loss_BS: 'jax.Array', targets: Mapping, deltas_BS4: 'jax.Array', rows_B: 'jax.Array') -> 'jax.Array':
  """Classification loss plus, for positives, the box loss; their mean over the samples that count."""
  counts_BS = targets['sampled'] & rows_B[:, None]
  box_loss_BS = smooth_l1(deltas_BS4 - targets['target_deltas']).sum(-1) * (targets['target_class'] > 0)
  return jnp.where(counts_BS, class_loss_BS + box_loss_BS, 0).sum() / jnp.maximum(counts_BS.sum(), 1)


def smooth_l1(error: 'jax.Array') -> 'jax.Array':
  """PyTorch's: quadratic up to SMOOTH_L1_BETA."""
  return optax.huber_loss(error, delta=SMOOTH_L1_BETA) / SMOOTH_L1_BETA


def pick_class(deltas_BSJ4: 'jax.Array', target_BS: 'jax.Array') -> 'jax.Array':
  """(B, S, 4): the deltas of each sample's true class."""
  return jnp.take_along_axis(deltas_BSJ4, target_BS[..., None, None], axis=2)[:, :, 0]


# Scores


def make_row(about: About, batch: Mapping, predictions: Mapping, index: int) -> dict[str, Any]:
  found, real = predictions['class_id'][index] >= 0, batch['class_id'][index] >= 0
  return {'boxes': predictions['boxes'][index][found], 'class_id': predictions['class_id'][index][found],
          'score': predictions['score'][index][found], 'truth_boxes': batch['boxes'][index][real],
          'truth_class_id': batch['class_id'][index][real], 'sizes': np.array(batch['image'].shape[1:3])}


LEGEND = 'Solid: true boxes; dashed: the five most certain predicted boxes with their scores; each class has a colour.'


def draw(axes: Any, about: About, labels: Row, prediction: Row) -> None:
  """True boxes solid with their class, the five most certain predicted boxes dashed with class and score. Without
  labels, predicted boxes are solid, and those below the operating point of their class thin and dashed."""
  from matplotlib.patches import Rectangle  # slow to import, and only pictures need it
  names, thresholds, placed = about['box_classes'], about.get('thresholds', {}), list[tuple[float, float]]()
  for (y0, x0, y1, x1), class_id in zip(labels.get('boxes', ()), labels.get('class_id', ()), strict=True):
    if class_id >= 0:
      axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=f'C{class_id}', linewidth=1))
      axes.text(x0, y1, names[class_id], color=f'C{class_id}', fontsize=5, verticalalignment='top')
  for (y0, x0, y1, x1), class_id, score in [*zip(prediction['boxes'], prediction['class_id'], prediction['score'],
                                                 strict=True)][:5]:
    if class_id >= 0:
      is_below = score < thresholds.get(names[class_id], 0)
      axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=f'C{class_id}',
                               linewidth=0.5 if is_below else 1, linestyle='dashed' if labels or is_below else 'solid'))
      y = find_free(placed, float(x0), float(y0))
      axes.text(x0, y, f'{names[class_id]} {score:.2f}', color=f'C{class_id}' if labels else 'white',
                fontsize=5 if labels else 8, verticalalignment='baseline' if labels else 'bottom',
                bbox=None if labels else dict(facecolor=f'C{class_id}', linewidth=0, pad=1))
  shown = [names[class_id] for class_id in np.unique(prediction['class_id'][:5]) if class_id >= 0]
  if points := ', '.join(f'{name} {thresholds[name]:.2f}' for name in shown if name in thresholds):
    axes.set_xlabel(f'operating point: {points}; thin and dashed: below it', fontsize=7)


def find_free(placed: list[tuple[float, float]], x: float, y: float) -> float:
  """The y from 0 to 1 at which a text that begins at x covers none of those that are placed; it is added to them."""
  while any(abs(x - other_x) < 0.3 and abs(y - other_y) < 0.049 for other_x, other_y in placed):
    y += 0.05
  placed.append((x, y))
  return y


DETECTION = TaskKind(
  name='detection',
  annotation='box_classes',
  read_label=read_label,
  label_shapes=label_shapes,
  find_defect=find_defect,
  make_model=make_model,
  make_row=make_row,
  metrics=detection.METRICS,
  draw=draw,
  legend=LEGEND,
  head_schema={
    'width': whole(1, 8192), 'roi_hidden': whole(1, 65_536), 'anchor_sizes': levels(),
    'aspect_ratios': row(number(0.01, 100.0), 1, 16), 'rpn_proposals_train': row(whole(1, 10_000), 2, 2),
    'rpn_proposals_test': row(whole(1, 10_000), 2, 2), 'rpn_nms_iou': number(0.0, 1.0),
    'rpn_match_iou': span(0.0, 1.0), 'rpn_sample': sample(), 'roi_match_iou': span(0.0, 1.0), 'roi_sample': sample(),
    'min_score': number(0.0, 1.0), 'roi_nms_iou': number(0.0, 1.0), 'max_detections': whole(1, 10_000)},
  check=check,
  list_classes=list_classes,
  find_split_defect=find_split_defect,
  fit_labels=fit_slots)
