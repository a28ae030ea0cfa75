"""What preparing a damaged archive may end in; all else is a `Fault`."""
import csv
import math

import cv2
import numpy as np

from tfds_builders.common import archives, dataset, images

SEXES = ('F', 'M', '')
OLDEST = 120  # years
LARGEST = 1e9  # of a value of one's own, which may be 0 or less
LONGEST = 256  # px, of the builder's default config
LINE = 2500  # characters of an error


class Fault(AssertionError):
  """A case that did not end as it must."""


def demand(holds, words):
  if not holds:
    raise Fault(words)


def judge_error(error, name, root, files):
  """A declared error says in one line which dataset or file it is about."""
  demand(isinstance(error, (ValueError, OSError)), f'undeclared {type(error).__name__}: {error}'[:300])
  text = str(error)
  demand(not archives.GARBLED.search(text) and len(text) < LINE, f'no one line: {type(error).__name__} {text[:300]!r}')
  told = isinstance(error, (archives.ArchiveMissing, dataset.TooManyRejects)) and name in text
  told |= str(root) in text or any(file in text for file in files)
  demand(told, f'names no file: {type(error).__name__} {text}')


def judge_line(text):
  """What a person is told is one line that can be printed."""
  demand(text.strip() and not archives.GARBLED.search(text) and len(text) < LINE, f'no one line: {text[:300]!r}')


def judge_record(image_id, record, name, metadata):
  """A record is what the schema says (`common.describe`), to the range of every number."""
  demand(image_id and image_id.strip() and record['image_id'] == image_id, 'record without image_id')
  source, _, patient = record['patient'].partition(':')
  demand(source == record['source'] == name and patient.strip(), f'patient {record["patient"]!r}')
  for field in ('image_id', 'patient', 'study', 'part', 'view', 'sex'):
    demand(isinstance(record[field], str) and not archives.GARBLED.search(record[field]) and len(record[field]) < 300,
           f'{field} {record[field]!r:.99}')
  demand(record['sex'] in SEXES, f'sex {record["sex"]!r}')
  demand(math.isnan(record['age']) or 0 <= record['age'] <= OLDEST, f'age {record["age"]}')
  shape = judge_image(record['image'], 'image').shape
  demand(max(shape) <= LONGEST, f'image of {shape}')
  if metadata['findings']:
    present, known = np.asarray(record['present'], float), np.asarray(record['label_mask'], bool)
    demand(len(present) == len(known) == len(metadata['findings']), 'another number of findings')
    demand(np.isin(present, (0, 1)).all() and not present[~known].any(), f'present {present} known {known}')
    demand(metadata['relation'] == 'independent' or present.sum() == 1, f'{metadata["relation"]} present {present}')
  if metadata['value']:
    value, months = np.asarray(record['value']), metadata['value']['name'] == 'bone age'
    demand(value.shape == (1,) and np.isfinite(np.float32(value)).all(), f'value {value}')
    demand(0 < value[0] < 12 * OLDEST if months else abs(value[0]) <= LARGEST, f'value {value}')
  if metadata['mask']:
    mask = judge_image(record['mask'], 'mask')
    demand(mask.shape == shape, f'mask of {mask.shape}, image of {shape}')
    strange = set(np.unique(mask).tolist()) - {*range(len(metadata['mask'])), dataset.UNANNOTATED}
    demand(not strange, f'mask with {strange}')
  for one in record.get('objects', ()):
    box = one['box']
    demand(0 <= box.ymin < box.ymax <= 1 and 0 <= box.xmin < box.xmax <= 1, f'box {box}')
    demand(one['class_id'] in metadata['box_classes'], f'kind {one["kind"]!r}')


def judge_image(raw, field):
  """HW uint8 of a stored PNG, which Pillow and OpenCV must read alike: nobody knows which of them will."""
  image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  demand(image is not None and image.ndim == 2 and image.dtype == np.uint8, f'{field} is no grey image of 8 bits')
  demand(np.array_equal(image, images.reduce(images.decode(raw))), f'{field} is another in Pillow than in OpenCV')
  return image


def judge_rejects(rejects, folder):
  """Each reject says what and why, and all of them are in rejects.csv."""
  for reject in rejects:
    demand(reject.image_id or reject.path, f'reject of nothing: {reject}'[:300])
    line = reject.reason and not archives.GARBLED.search(reject.reason) and len(reject.reason) <= dataset.LINE
    demand(line, f'reason {reject.reason!r:.300}')
  with open(folder / 'rejects.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  demand(len(rows) == len(rejects), f'{len(rejects)} rejects, {len(rows)} in rejects.csv')


def judge_count(records, rejects, left_out, there, clean):
  """No image of the undamaged archive that is still where it was goes without a word.

  Args:
    there: how many of these images there are.
    clean: what is left out of the undamaged archive.
  """
  told = len(rejects) + max(0, sum(left_out.values()) - sum(clean.values()))
  demand(len(records) + told >= there, f'{there} images, {len(records)} records, {told} rejected or left out')
