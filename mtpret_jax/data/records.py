"""A record as the builder wrote it -> arrays of fixed shape, and words about it.

Letters: S side of the square in pixels, T findings, M slots for boxes.
"""

import functools
import logging

import cv2
import numpy as np

from mtpret_jax.data import plain_png

cv2.setNumThreads(0)  # records are decoded in many threads already
UNANNOTATED = 255  # in masks as builders write them; -1 in batches

log = logging.getLogger(__name__)


def decode_image(encoded, size):
  """PNG or JPEG bytes -> (size, size, 1) uint8, squashed to the square: padding would tell the datasets apart."""
  pixels = decode_grey(encoded)
  if pixels.shape != (size, size):
    shrinking = pixels.shape[0] * pixels.shape[1] > size * size
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
  return pixels[..., None]


def decode_mask(encoded, size):
  """PNG bytes -> (size, size) uint8, 255 where not annotated: squashed as `decode_image` does, by nearest neighbour."""
  pixels = decode_grey(encoded)
  if pixels.shape != (size, size):
    # pixel centres, as INTER_AREA and INTER_LINEAR have them; plain INTER_NEAREST is off by up to half a pixel
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
  return pixels


def decode_grey(encoded):
  pixels = plain_png.read(encoded)
  if pixels is None:
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
  if pixels is None:
    raise ValueError('a stored image does not decode: the prepared dataset is damaged; build it again with --overwrite')
  return pixels


def read_labelled(task, about, config, record):
  """One row of a batch of `task`, a dict of arrays: `image` (S, S, 1) uint8 and what the task is taught by.

  | task | field |
  |---|---|
  | classification | `present` (T,) float32, 0 where not known; `label_mask` (T,) bool |
  | regression | `value` (1,) float32, in the dataset's unit |
  | segmentation | `mask` (S, S) int8, -1 where not annotated |
  | detection | `boxes` (M, 4) float32, y0, x0, y1, x1 in 0-1; `class_id` (M,) int32, -1 in empty slots, whose box is 0 |

  Args:
    about: what the dataset says of itself: its `findings`, `mask`, `box_classes`.
    config: `size`, which is S; and `objects`, which is M, for detection. Of more boxes the largest are kept, with a
      warning, the first time in a process.

  Raises:
    ValueError: no such task, or the record has not what the task needs, or another number of it than `about` says.
  """
  if task not in READERS:
    raise ValueError(f'unknown task {task!r}; have {", ".join(READERS)}')
  field, read = READERS[task]
  if field not in record:
    raise ValueError(f'{name_record(record)} has no {field!r}, which {task} needs; it has {", ".join(sorted(record))}')
  return {'image': decode_image(record['image'], config.size)} | read(about, config, record)


def read_findings(about, config, record):
  known = np.asarray(record['label_mask'], bool)
  present = np.where(known, record['present'], 0).astype(np.float32)
  if known.shape != (len(about['findings']),) or not np.isin(present, (0, 1)).all():
    raise ValueError(f'{name_record(record)}: present is {present.tolist()}, not 0 or 1 for each of '
                     f'{about["findings"]}')
  return {'present': present, 'label_mask': known}


def read_value(about, config, record):
  value = np.asarray(record['value'], np.float32)
  if value.shape != (1,) or not np.isfinite(value).all():
    raise ValueError(f'{name_record(record)}: the value is {value.tolist()}, not one finite number; leave it out')
  return {'value': value}


def read_mask(about, config, record):
  mask = decode_mask(record['mask'], config.size)
  annotated = mask != UNANNOTATED
  if (mask[annotated] >= len(about['mask'])).any():
    raise ValueError(f'{name_record(record)}: the mask has values {np.unique(mask).tolist()}, but the classes are '
                     f'{about["mask"]}')
  return {'mask': np.where(annotated, mask.astype(np.int8), np.int8(-1))}


def read_objects(about, config, record):
  boxes = np.asarray(record['objects']['box'], np.float32).reshape(-1, 4)
  kind = np.asarray(record['objects']['class_id'], np.int32)
  if not np.isin(kind, range(len(about['box_classes']))).all():
    raise ValueError(f'{name_record(record)}: objects of kinds {kind.tolist()}, but the kinds are {about["box_classes"]}')
  if len(boxes) > config.objects:
    warn_of_many(name_record(record), len(boxes), config.objects)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = np.sort(np.argsort(-areas, kind='stable')[:config.objects])
    boxes, kind = boxes[largest], kind[largest]
  empty = config.objects - len(boxes)
  return {'boxes': np.pad(boxes, ((0, empty), (0, 0))), 'class_id': np.pad(kind, (0, empty), constant_values=-1)}


@functools.cache  # an image comes again every epoch
def warn_of_many(name, found, slots):
  log.warning('%s has %d boxes, the %d largest are kept: try a larger config.data.objects', name, found, slots)


READERS = {
  'classification': ('present', read_findings),
  'regression': ('value', read_value),
  'segmentation': ('mask', read_mask),
  'detection': ('objects', read_objects),
}


def describe_record(record):
  """Who and what is in the image: {image_id, patient, study, sex, view, part} as text, '' where unknown, and `age` in
  years, NaN where unknown."""
  words = {field: read_text(record[field]) for field in ('image_id', 'patient', 'study', 'sex', 'view', 'part')}
  return words | {'age': float(record['age'])}


def name_record(record):
  return f'{read_text(record.get("source", ""))} {read_text(record.get("image_id", ""))}'.strip() or 'a record'


def read_text(text):
  return text.decode() if isinstance(text, bytes) else str(text)
