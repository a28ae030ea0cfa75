"""Which records can teach a task anything."""

import collections
import dataclasses

import numpy as np

from mtpret_jax.data.records import UNANNOTATED, decode_grey
from mtpret_jax.data.sources import View


def find_lack(task, about, record):
  """Why the record, which has the fields of `task`, teaches it nothing; '' where it does.

  An image without boxes is left out, too: of NIH's chest X-rays 880 have boxes, and those of the others were never
  drawn. torchvision's reference training leaves such images out as well.
  """
  return LACKS[task](about, record)


def lack_findings(about, record):
  known, present = np.asarray(record['label_mask'], bool), np.asarray(record['present'])
  if about['relation'] == 'independent':
    return '' if known.any() else 'no finding known'
  return '' if (present[known] > 0).any() else 'not known which finding'


def lack_value(about, record):
  return '' if np.isfinite(record['value']).all() else 'value unknown'


def lack_mask(about, record):
  return '' if (decode_grey(record['mask']) != UNANNOTATED).any() else 'no pixel annotated'


def lack_objects(about, record):
  return '' if len(record['objects']['class_id']) else 'no box'


LACKS = {
  'classification': lack_findings,
  'regression': lack_value,
  'segmentation': lack_mask,
  'detection': lack_objects,
}


def keep_suitable(task, source):
  """(source of the records that can teach `task`, {reason: number left out}). Reads every record once: a millisecond
  each. Raises ValueError where none is left."""
  places, left_out = [], collections.Counter()
  for position in range(len(source)):
    lack = find_lack(task, source.about, source.records[position])
    if lack:
      left_out[lack] += 1
    else:
      places.append((source.split, position))
  if not places:
    raise ValueError(f'{source.name} {source.split}: none of {len(source)} images can teach {task}: {dict(left_out)}')
  if not left_out:
    return source, {}
  return dataclasses.replace(source, records=View({source.split: source.records}, places)), dict(left_out)
