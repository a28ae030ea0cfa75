"""The labels of records as columns of index.csv, and back. NumPy only, because training reads them too.

A cell holds numbers with spaces between them. Only datasets whose records have the field have the column.

| column | numbers |
|---|---|
| present, label_mask, uncertain, value | as in the record |
| class_id, box | of each box; four numbers of `box` for each of `class_id` |
| mask_pixels | annotated pixels of each mask class, up to the last class that the mask has |
| row_check | of the row without sha256, see `check_row`; every index that has labels has this column, the last one |
"""
import csv
import pathlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

NUMBERS: Mapping[str, Any] = {
  'present': np.float32, 'label_mask': np.bool_, 'uncertain': np.bool_, 'value': np.float32, 'class_id': np.int64,
  'box': np.float32, 'mask_pixels': np.int64}
OF_FIELD = {'objects': ('class_id', 'box'), 'mask': ('mask_pixels',)}  # record field -> columns, if not of its name
ROW_CHECK = 'row_check'
UNANNOTATED = 255  # mask value of pixels that nobody annotated


def list_columns(fields: Collection[str]) -> list[str]:
  """The label columns of a dataset whose records have these fields, without `row_check`."""
  there = {column for field in fields for column in OF_FIELD.get(field, (field,))}
  return [column for column in NUMBERS if column in there]


def count_pixels(mask: np.ndarray) -> np.ndarray:
  """The annotated pixels of each class of a (H, W) uint8 mask, up to the last class that it has."""
  counts = np.bincount(mask.ravel(), minlength=UNANNOTATED)
  return np.trim_zeros(counts[:UNANNOTATED], 'b')


def write_cells(record: Mapping[str, Any], columns: Sequence[str], mask: np.ndarray | None) -> list[str]:
  """A record's cells of `list_columns`. `mask`: its decoded mask, if it has one."""
  values = {**record, **record.get('objects', {})}
  if mask is not None:
    values['mask_pixels'] = count_pixels(mask)
  # Nine digits tell every float32 from every other.
  return [' '.join(f'{float(number):.9g}' for number in np.ravel(values[column])) for column in columns]


def has_labels(path: pathlib.Path) -> bool:
  """Whether an index has labels, which earlier versions did not write."""
  with open(path, newline='', encoding='utf-8') as file:
    return ROW_CHECK in next(csv.reader(file), ())


def read_cells(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
  """The label fields of each row of an index that has labels, as its record has them: `present`, `label_mask`,
  `uncertain`, `value`, `objects`. In place of a mask it has `mask_pixels` and `mask_classes`, the classes with any
  pixel.

  Raises:
    ValueError: a row was changed since it was written.
  """
  check_rows(rows)
  columns = [column for column in NUMBERS if column in rows[0]]
  parsed = {column: parse_column([row[column] for row in rows], NUMBERS[column]) for column in columns}
  labels = [dict(zip(columns, values, strict=True)) for values in zip(*parsed.values(), strict=True)]
  labels = labels or [{} for _ in rows]
  for label in labels:
    if 'class_id' in label:
      label['objects'] = {'box': label.pop('box').reshape(-1, 4), 'class_id': label.pop('class_id')}
    if 'mask_pixels' in label:
      label['mask_classes'] = tuple(np.flatnonzero(label['mask_pixels']).tolist())
  return labels


def parse_column(cells: Sequence[str], dtype: Any) -> list[np.ndarray]:
  """The numbers of each cell. All cells are parsed at once: an index may have 100,000 rows."""
  numbers = np.array(' '.join(cells).split(), np.float64).astype(dtype)
  ends = np.cumsum([len(cell.split()) for cell in cells])
  return [numbers[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
  """Raises ValueError for a row that has a checksum and was changed since it was written."""
  for row in rows:
    if ROW_CHECK in row and check_row(row) != row[ROW_CHECK]:
      raise ValueError(f'the row of {row["split"]} {row["position"]} has been changed')


def check_row(row: Mapping[str, Any]) -> str:
  """A checksum of a row without sha256, which is checked against the record. It finds what a spreadsheet changed."""
  text = '\n'.join(f'{column} {value}' for column, value in row.items() if column not in (ROW_CHECK, 'sha256'))
  return f'{zlib.crc32(text.encode()):08x}'
