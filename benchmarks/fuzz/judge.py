"""The accepted outcomes of preparing a damaged archive; everything else is a `Fault`."""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import cv2
import numpy as np

from tfds_builders.common import archives, dataset, decoded, image_files, label_columns, plain_text
from tfds_builders.common.records import TooManyRejects

SEXES = ('F', 'M', '')
OLDEST = 120  # years
LARGEST = 1e9  # absolute value of a regression target of a custom dataset
LONGEST = 256  # px, of the builder's default config
LINE = 2500  # characters of an error


class Fault(AssertionError):
  """A case that ended badly."""


def demand(holds: object, words: str) -> None:
  if not holds:
    raise Fault(words)


def judge_error(error: Exception, name: str, root: pathlib.Path, files: Sequence[str]) -> None:
  """A declared error is one line that names the dataset or the file."""
  demand(isinstance(error, (ValueError, OSError)), f'undeclared {type(error).__name__}: {error}'[:300])
  text = str(error)
  demand(not plain_text.GARBLED.search(text) and len(text) < LINE,
         f'not one line: {type(error).__name__} {text[:300]!r}')
  named = isinstance(error, (archives.ArchiveMissing, TooManyRejects)) and name in text
  named |= str(root) in text or any(file in text for file in files)
  demand(named, f'names no file: {type(error).__name__} {text}')


def judge_line(text: str) -> None:
  """A message is one printable line."""
  demand(text.strip() and not plain_text.GARBLED.search(text) and len(text) < LINE, f'not one line: {text[:300]!r}')


def judge_record(image_id: str, record: Mapping[str, Any], name: str, metadata: Mapping[str, Any]) -> None:
  """A record follows the schema, and every number is in its range."""
  demand(image_id and image_id.strip() and record['image_id'] == image_id, 'record without image_id')
  source, _, patient = record['patient'].partition(':')
  demand(source == record['source'] == name and patient.strip(), f'patient {record["patient"]!r}')
  for field in ('image_id', 'patient', 'study', 'part', 'view', 'sex'):
    demand(isinstance(record[field], str) and not plain_text.GARBLED.search(record[field]) and len(record[field]) < 300,
           f'{field} {record[field]!r:.99}')
  demand(record['sex'] in SEXES, f'sex {record["sex"]!r}')
  demand(math.isnan(record['age']) or 0 <= record['age'] <= OLDEST, f'age {record["age"]}')
  shape = judge_image(record['image'], 'image').shape
  demand(max(shape) <= LONGEST, f'image of {shape}')
  if metadata['findings']:
    present, known = np.asarray(record['present'], float), np.asarray(record['label_mask'], bool)
    demand(len(present) == len(known) == len(metadata['findings']), 'wrong number of findings')
    demand(np.isin(present, (0, 1)).all() and not present[~known].any(), f'present {present} known {known}')
    demand(metadata['relation'] == 'independent' or present.sum() == 1, f'{metadata["relation"]} present {present}')
  if metadata['value']:
    value, months = np.asarray(record['value']), metadata['value']['name'] == 'bone age'
    demand(value.shape == (1,) and np.isfinite(np.float32(value)).all(), f'value {value}')
    demand(0 < value[0] < 12 * OLDEST if months else abs(value[0]) <= LARGEST, f'value {value}')
  if metadata['mask']:
    mask = judge_image(record['mask'], 'mask')
    demand(mask.shape == shape, f'mask of {mask.shape}, image of {shape}')
    strange = set(np.unique(mask).tolist()) - {*range(len(metadata['mask'])), label_columns.UNANNOTATED}
    demand(not strange, f'mask with {strange}')
  for one in record.get('objects', ()):
    box = one['box']
    demand(0 <= box.ymin < box.ymax <= 1 and 0 <= box.xmin < box.xmax <= 1, f'box {box}')
    demand(one['class_id'] in metadata['box_classes'], f'box class {one["class_id"]!r}')


def judge_image(raw: bytes, field: str) -> np.ndarray:
  """Decodes a stored PNG to HW uint8. Pillow and OpenCV must agree on it, because either may read it later."""
  image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  demand(image is not None and image.ndim == 2 and image.dtype == np.uint8, f'{field} is not a grey image of 8 bits')
  demand(np.array_equal(image, decoded.to_grey(image_files.decode(raw))), f'{field} differs between Pillow and OpenCV')
  return image


def judge_rejects(rejects: Sequence[Any], folder: pathlib.Path) -> None:
  """Each reject names an image and a reason, and all of them are in rejects.csv."""
  for reject in rejects:
    demand(reject.image_id or reject.path, f'reject of nothing: {reject}'[:300])
    line = reject.reason and not plain_text.GARBLED.search(reject.reason) and len(reject.reason) <= dataset.MAX_TEXT
    demand(line, f'reason {reject.reason!r:.300}')
  with open(folder / 'rejects.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  demand(len(rows) == len(rejects), f'{len(rejects)} rejects, {len(rows)} in rejects.csv')


def judge_count(records: Sized, rejects: Sized, left_out: Mapping[str, int], there: int,
                clean: Mapping[str, int]) -> None:
  """No image of the undamaged archive that is still in its place disappears silently.

  Args:
    there: the number of these images.
    clean: how many images are left out of the undamaged archive, by reason.
  """
  accounted = len(rejects) + max(0, sum(left_out.values()) - sum(clean.values()))
  demand(len(records) + accounted >= there,
         f'{there} images, {len(records)} records, {accounted} rejected or left out')
