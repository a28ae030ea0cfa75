"""Segmentation: the class of each pixel, by DeepLab-V3.

Letters: B images, N rows of a table, H W rows and columns of the image, T classes with the background first.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from ml_collections import ConfigDict

from mtpret_jax.config.rules import choice, number, row, whole
from mtpret_jax.data.records import decode_grey, decode_mask, name_record
from mtpret_jax.evaluation.metrics import segmentation
from mtpret_jax.tasks.class_weights import BALANCED, balance, read_weights
from mtpret_jax.tasks.sides import exchange, find_mirror
from mtpret_jax.tasks.task import About, Row, TaskKind, TaskModel, find_rows, sum_known, sum_weighted
from tfds_builders.common import label_columns

with epy.lazy_imports():
  import jax
  import jax.numpy as jnp
  import optax

  from mtpret_jax.models import deeplab

SMOOTH = 1e-5  # pixels added above and below in the soft Dice, as nnU-Net does (Isensee et al. 2021)


# Labels


def read_label(about: About, task_config: ConfigDict, record: Mapping) -> Row:
  """`mask` (S, S) int8, or int16 for more than 128 classes: the class of each pixel, -1 where it is not annotated."""
  mask = decode_mask(record['mask'], task_config.size)
  annotated = mask != label_columns.UNANNOTATED
  if (mask[annotated] >= len(about['mask'])).any():
    raise ValueError(f'{name_record(record)}: the mask has values {np.unique(mask).tolist()}, but the classes are '
                     f'{about["mask"]}')
  return {'mask': np.where(annotated, mask.astype(np.int16), -1).astype(find_dtype(about))}


def find_dtype(about: About) -> type[np.signedinteger]:
  return np.int8 if len(about['mask']) <= 128 else np.int16


def label_shapes(about: About, task_config: ConfigDict) -> dict[str, tuple]:
  return {'mask': ((task_config.size, task_config.size), find_dtype(about))}


def find_defect(about: About, task_config: ConfigDict, record: Mapping, split: str) -> str:
  return '' if summarise_label(record)['mask_classes'] else 'no annotated pixel'


def summarise_label(record: Mapping) -> dict[str, Any]:
  """`mask_pixels`, the annotated pixels of each class, up to the last class that the mask has; `mask_classes`, those
  that have any. From index.csv if the record has them from there."""
  pixels = record['mask_pixels'] if 'mask_pixels' in record else count_mask_pixels(record['mask'])
  return {'mask_classes': tuple(np.flatnonzero(pixels).tolist()), 'mask_pixels': pixels}


@functools.lru_cache(maxsize=1)  # a record's mask is asked for twice in a row, and decoding takes most of the time
def count_mask_pixels(encoded: bytes) -> np.ndarray:
  return label_columns.count_pixels(decode_grey(encoded))


def list_classes(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> dict[str, np.ndarray]:
  """The foreground classes; {} where the masks were not read."""
  if not all('mask_classes' in label for label in labels):
    return {}
  return {name: np.array([index in label['mask_classes'] for label in labels], bool)
          for index, name in enumerate(about['mask']) if index}


def find_split_defect(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> str:
  shown = sorted({index for label in labels for index in label.get('mask_classes', range(len(about['mask'])))})
  names = ', '.join(about['mask'][index] for index in shown if index < len(about['mask']))
  return '' if len(shown) > 1 else f'has masks of one class only ({names})'


# Model


def make_model(about: About, config: ConfigDict | None) -> TaskModel:
  """DeepLab-V3 for the classes of `about['mask']`. `config`: output_stride, width, dilations, and `dice`, the weight of
  the soft Dice loss beside the cross-entropy (0 disables it)."""
  assert config is not None

  def make_head(trunk: Any, rngs: Any) -> Any:
    return deeplab.DeepLab(trunk.channels, len(about['mask']), width=config.width, dilations=config.dilations,
                           rngs=rngs)

  def apply(head: Any, features: list, batch: Mapping, *, groups: int | None, rng: Any) -> dict:
    return {'logits': head(features, batch['image'].shape[1:3], groups=groups, rng=rng)}

  mirror = find_mirror(about['mask'])

  return TaskModel(make_head, config.output_stride, apply, functools.partial(compute_loss, config.dice),
                   predict=lambda outputs: outputs,
                   mirror=mirror,
                   merge=average_pixels,
                   unmirror=lambda predictions: {'logits': exchange(predictions['logits'][:, :, ::-1], mirror)},
                   decide=lambda predictions: {'mask': predictions['logits'].argmax(-1).astype(jnp.int32)})


def average_pixels(predictions: Sequence[Mapping]) -> dict:
  """The mean of the probabilities of each pixel, as logits. Smaller maps are enlarged to the size of the largest."""
  probability_VBHWT = [jax.nn.softmax(each['logits']) for each in predictions]
  largest = max(each.shape[1:3] for each in probability_VBHWT)
  resized = [each if each.shape[1:3] == largest else jax.image.resize(
    each, (len(each), *largest, each.shape[3]), 'bilinear') for each in probability_VBHWT]
  return {'logits': jnp.log(sum(resized) / len(resized))}


def make_loss(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> Callable:
  """The loss with `task_config.loss.class_weights`; 'balanced' ones are pixels / (classes * pixels of the class), over
  the annotated pixels of the training masks."""
  setting, names = task_config.loss.class_weights, about['mask']
  if setting == BALANCED:
    counts = np.zeros(len(names), int)
    for label in labels:
      counts[:len(label['mask_pixels'])] += label['mask_pixels']
    weights = balance(counts.tolist())
  else:
    weights = read_weights(setting, names)
  return functools.partial(compute_loss, task_config.head.dice, weight_T=np.array(weights, np.float32))


def compute_loss(dice: float, outputs: Mapping, batch: Mapping,
                 weight_T: np.ndarray | None = None) -> tuple['jax.Array', 'jax.Array']:
  """Cross-entropy over the annotated pixels, weighted by class if there are weights, plus `dice` times the soft Dice
  loss."""
  mask_BHW = batch['mask']
  annotated_BHW = (mask_BHW >= 0) & find_rows(batch)[:, None, None]
  losses_BHW = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], jnp.maximum(mask_BHW, 0))
  if weight_T is None:
    total, count = sum_known(losses_BHW, annotated_BHW)
  else:
    total, count = sum_weighted(losses_BHW, jnp.asarray(weight_T)[jnp.maximum(mask_BHW, 0)], annotated_BHW)
  if dice:
    # The Dice loss is a mean over images. It is multiplied by the number of pixels, because the caller divides by it.
    total += dice * soft_dice_loss(outputs['logits'], mask_BHW, annotated_BHW) * count
  return total, count


def soft_dice_loss(logits_BHWT: 'jax.Array', mask_BHW: 'jax.Array', annotated_BHW: 'jax.Array') -> 'jax.Array':
  """1 - soft Dice (Milletari et al. 2016, with p instead of p^2 in the denominator): the mean over the foreground
  classes of each image, then over the images that have annotated pixels."""
  there_BHW1 = annotated_BHW[..., None].astype(jnp.float32)
  probability_BHWT = jax.nn.softmax(logits_BHWT)[..., 1:] * there_BHW1
  truth_BHWT = jax.nn.one_hot(mask_BHW, logits_BHWT.shape[-1])[..., 1:] * there_BHW1
  overlap_BT = (probability_BHWT * truth_BHWT).sum((1, 2))
  total_BT = (probability_BHWT + truth_BHWT).sum((1, 2))
  losses_B = 1 - ((2 * overlap_BT + SMOOTH) / (total_BT + SMOOTH)).mean(1)
  total, count = sum_known(losses_B, annotated_BHW.any((1, 2)))
  return total / jnp.maximum(count, 1)


# Scores


def make_row(about: About, batch: Mapping, predictions: Mapping, index: int) -> dict[str, Any]:
  return {'confusion': count_pixels(batch['mask'][index], predictions['mask'][index], len(about['mask']))}


def count_pixels(mask_HW: np.ndarray, predicted_HW: np.ndarray, classes: int) -> np.ndarray:
  """(T, T) confusion matrix of the annotated pixels: true class by predicted class."""
  annotated = mask_HW >= 0
  pairs = mask_HW[annotated].astype(int) * classes + predicted_HW[annotated]
  return np.bincount(pairs, minlength=classes ** 2).reshape(classes, classes)


def draw(axes: Any, about: About, labels: Row, prediction: Row) -> None:
  """The outline of each true class (solid) and of each predicted class (dashed), with the Dice of the image; without
  labels, the predicted ones with their names."""
  size, is_single = prediction['mask'].shape[0], len(about['mask']) == 2
  grid = np.arange(0.5, size) / size
  outlines = ((labels['mask'], 'solid'), (prediction['mask'], 'dashed')) if labels else ((prediction['mask'], 'solid'),)
  for index in range(1, len(about['mask'])):
    for mask, style in outlines:
      # One class leaves a colour for its prediction; of several, each has its own.
      colour = f'C{index if is_single and style == "dashed" else index - 1}'
      if (mask == index).any() and (mask != index).any():
        axes.contour(grid, grid, mask == index, levels=[0.5], colors=[colour], linestyles=style,
                     linewidths=0.8 if labels else 1.5)
    if not labels:
      axes.plot([], [], color=f'C{index - 1}', label=about['mask'][index])
  if labels:
    confusion_1TT = count_pixels(labels['mask'], prediction['mask'], len(about['mask']))[None]
    error, = segmentation.find_errors(about, {'confusion': confusion_1TT})
    dice = '' if np.isnan(error) else f'Dice {1 - error:.2f}; '
    axes.set_xlabel(f'{dice}solid: true, dashed: predicted', fontsize=6)
  else:
    axes.legend(loc='lower right', fontsize=6)


SEGMENTATION = TaskKind(
  name='segmentation',
  annotation='mask',
  read_label=read_label,
  label_shapes=label_shapes,
  find_defect=find_defect,
  make_model=make_model,
  make_row=make_row,
  metrics=segmentation.METRICS,
  draw=draw,
  summarise_label=summarise_label,
  list_classes=list_classes,
  find_split_defect=find_split_defect,
  head_schema={'output_stride': choice((8, 16, 32)), 'width': whole(1, 8192),
               'dilations': row(whole(1, 1000), 1, 16), 'dice': number(0.0, 1000.0)},
  dense=True,
  make_loss=make_loss)
