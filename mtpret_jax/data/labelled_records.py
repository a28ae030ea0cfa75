"""Records whose labels are known from index.csv: a record is read only when someone asks for another field."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtpret_jax.data.records import decode_grey
from tfds_builders.common import label_columns

LABEL_FIELDS = {'present', 'label_mask', 'uncertain', 'value', 'objects', 'mask_pixels', 'mask_classes'}


@dataclasses.dataclass(frozen=True)
class LabelledRecord(Mapping[str, Any]):
  """Record `place` of `records`. Attributes:
    known: some of its fields; of LABEL_FIELDS all that it has.
  """

  known: Mapping[str, Any]
  records: Any
  place: int

  def __getitem__(self, field: str) -> Any:
    if field in self.known:
      return self.known[field]
    if field in LABEL_FIELDS:
      raise KeyError(field)
    return self.records[self.place][field]

  def __iter__(self) -> Iterator[str]:
    return iter({**self.records[self.place], **self.known})

  def __len__(self) -> int:
    return len({**self.records[self.place], **self.known})


def agrees(record: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
  """Whether a record has the labels that are known of it."""
  there = {**record, **record.get('objects', {})}
  if 'mask' in record:
    there['mask_pixels'] = label_columns.count_pixels(decode_grey(record['mask']))
  known = {**known, **known.get('objects', {})}
  return all(np.array_equal(np.ravel(there[field]), np.ravel(known[field]), equal_nan=field == 'value')
             for field in label_columns.NUMBERS if field in there)
