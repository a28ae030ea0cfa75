"""The random views of a batch as a picture: what the network sees while it trains."""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.augment import labelled, views
from mtpret_jax.data.task_schedule import JOINT

IMAGES, GAP, LARGEST = 8, 2, 256  # images in a picture; px between them; px, side of the largest
# matplotlib's C0 to C4
COLOURS = np.array([[31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40], [148, 103, 189]], np.uint8)


def draw_views(config: ConfigDict, task: str, rows: Mapping[str, Any],
               mirrors: Mapping[str, Sequence[int] | None] = MappingProxyType({})) -> np.ndarray:
  """(H, W, 3) uint8: some images of a batch, and below each its random views: two in stage 1, one in stages 2 and 3,
  with the mask or the boxes that move along. `mirrors`: {task: its `TaskModel.mirror`}."""
  rng = jax.random.key(config.seed)
  if task == JOINT:
    own = [(name, {field.removeprefix(f'{name}/'): values for field, values in rows.items()
                   if field.startswith(f'{name}/')}) for name in config.tasks]
    return stack([draw_views(config, name, fields, mirrors) for name, fields in own])
  few = {field: np.asarray(values[:IMAGES]) for field, values in rows.items()}
  if task == 'moco':
    make_view = jax.jit(lambda images, rng: views.make_view(images, rng, config.augment, 'float32'))
    images, size = few['query'], config.augment.size
    seen = [{'image': make_view(images, own_rng)} for own_rng in jax.random.split(rng)]
    few = {'image': images}
  else:
    task_config = config.tasks[task]
    images, size = few['image'], task_config.augment.size
    seen = [jax.jit(functools.partial(labelled.make_labelled_view, config=task_config.augment, dtype='float32',
                                      mirror=mirrors.get(task)))(few, rng)]
  stored = images[..., 0].astype(np.float32) / 255
  mean, deviation = stored.mean((1, 2), keepdims=True), np.maximum(stored.std((1, 2), keepdims=True), 1 / 255)
  size = min(size, LARGEST)
  strips = [join([draw_labels(stored[index], few, index, size) for index in range(len(stored))])]
  for view in map(jax.device_get, seen):
    pixels = view['image'][..., 0] * deviation + mean  # undoes `views.standardise`
    strips.append(join([draw_labels(pixels[index], view, index, size) for index in range(len(stored))]))
  return stack(strips)


def draw_labels(pixels_HW: np.ndarray, fields: Mapping[str, Any], index: int, size: int) -> np.ndarray:
  """Image `index` at (size, size), 0-1, in grey, with its mask in colour and its boxes. (size, size, 3) uint8."""
  grey = cv2.resize(np.clip(pixels_HW, 0, 1).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
  picture = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
  if 'mask' in fields:
    mask = cv2.resize(np.asarray(fields['mask'][index], np.int16), (size, size), interpolation=cv2.INTER_NEAREST)
    colours = COLOURS[(mask - 1) % len(COLOURS)]
    picture = np.where(mask[..., None] > 0, picture // 2 + colours // 2, picture)
  if 'boxes' in fields:
    for box, class_id in zip(np.asarray(fields['boxes'][index]), fields['class_id'][index], strict=True):
      if class_id >= 0:
        y0, x0, y1, x1 = (int(value) for value in np.round(box * (size - 1)))
        cv2.rectangle(picture, (x0, y0), (x1, y1), COLOURS[class_id % len(COLOURS)].tolist())
  return picture


def join(pictures: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures of one size side by side, with gaps."""
  return np.concatenate([np.pad(picture, ((0, GAP), (0, GAP), (0, 0))) for picture in pictures], axis=1)


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures below each other; narrow ones get a margin on the right."""
  width = max(picture.shape[1] for picture in pictures)
  return np.concatenate([np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures])
