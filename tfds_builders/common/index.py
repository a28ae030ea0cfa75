"""index.csv of a prepared dataset: one row per stored record, beside the records.

| column | meaning |
|---|---|
| split, position | where the record is stored; the split is that of the rule `patient` |
| image_id, patient | as in the record |
| paper, official | the record's split by that rule; empty if it is in none |
| stratum | of the patient, see `splits.stratify`; a fraction of the patients is a fraction of each stratum |
| sha256 | of the stored bytes, which cover image, mask and labels |
| labels, in several columns | a start of training decides by them what it can learn from, see `label_columns` |
"""
import collections
import csv
import hashlib
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from google.protobuf import json_format

from tfds_builders.common import build_command, images, label_columns, plain_text, splits

NAME = 'index.csv'
COLUMNS = ('split', 'position', 'image_id', 'patient', 'paper', 'official', 'stratum', 'sha256')
RAW = tfds.decode.DeserializeMethod.RAW_BYTES
ENCODED = tfds.decode.SkipDecoding()
READERS = min(8, os.cpu_count() or 1)  # threads; reading and hashing release the GIL


def write(path: pathlib.Path, split_rules: Mapping[str, Mapping[str, str]], strata: Mapping[str, str]) -> None:
  """Reads every record back and writes the index.

  This is the last step of a build. The file is renamed into place, so half an index is never seen.

  Args:
    path: of the prepared version.
    split_rules: {'paper' | 'official': {image_id: split}}.
    strata: {image_id: stratum of its patient}.
  """
  def find_split(split: str, position: int, image_id: str) -> dict[str, str]:
    return {rule: split_rules[rule].get(image_id, '') for rule in ('paper', 'official')} | {'stratum': strata[image_id]}

  write_rows(path, find_split)


def add_labels(path: pathlib.Path) -> None:
  """Writes an index of an earlier version again, with label columns. Reads every record.

  Raises:
    ValueError: a record is not the one that the index was written for; the message has the remedy.
  """
  rows = {(row['split'], row['position']): row for row in read(path)}
  remedy = f'prepare it again with {build_command.show(path, overwrite=True)}'

  def find_split(split: str, position: int, image_id: str) -> dict[str, str]:
    row = rows.get((split, position), {})
    if row.get('image_id') != image_id:
      raise ValueError(f'{path} is damaged: {NAME} does not list record {position} of {split}; {remedy}')
    return {column: row[column] for column in ('paper', 'official', 'stratum', 'sha256')}

  write_rows(path, find_split, remedy)


def write_rows(path: pathlib.Path, find_split: Callable[[str, int, str], Mapping[str, str]], remedy: str = '') -> None:
  """Reads every record and writes its row. `find_split`: (split, position, image_id) -> the row's `paper`, `official`
  and `stratum`, and if the row is known already its `sha256`, which must be that of the record."""
  builder = tfds.builder_from_directory(path)
  columns = label_columns.list_columns(builder.info.features)
  partial = path / f'{NAME}.{uuid.uuid4().hex}.part'  # a name of its own: not every file system has locks
  try:
    with open(partial, 'w', newline='', encoding='utf-8') as file:
      table = csv.writer(file)
      table.writerow((*COLUMNS, *columns, label_columns.ROW_CHECK))
      for split in splits.FRACTIONS:
        for position, raw in enumerate(scan(builder, split)):
          record = parse(builder, raw)
          image_id = record['image_id'].decode()
          known = find_split(split, position, image_id)
          sha256 = digest(raw)
          if known.get('sha256', sha256) != sha256:
            raise ValueError(f'{path} is damaged: record {position} of {split}, {image_id}, differs from what was '
                             f'written; {remedy}')
          mask = images.decode_stored(record['mask']) if 'mask' in record else None
          cells = (split, position, image_id, record['patient'].decode(), known['paper'], known['official'],
                   known['stratum'], sha256, *label_columns.write_cells(record, columns, mask))
          table.writerow((*cells, label_columns.check_row(dict(zip((*COLUMNS, *columns), cells, strict=True)))))
    partial.rename(path / NAME)
  finally:
    partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Rows of the index as dicts, `position` as int.

  Raises:
    FileNotFoundError, ValueError: there is no index, or it was changed since, for example by a spreadsheet; the message
      has the remedy.
  """
  try:
    with open(pathlib.Path(path, NAME), newline='', encoding='utf-8') as file:
      rows = [{**row, 'position': int(row['position'])} for row in csv.DictReader(file)]
    label_columns.check_rows(rows)
    return rows
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{path} has no {NAME}: prepare it again with {build_command.show(path)}') from error
  except (ValueError, KeyError, TypeError, csv.Error) as error:
    raise ValueError(f'{path}/{NAME} is not as it was written: prepare it again with '
                     f'{build_command.show(path, overwrite=True)}') from error


def scan(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[bytes]:
  """Yields the stored bytes of each record of a split, in order."""
  source = builder.as_data_source(split, deserialize_method=RAW)
  with futures.ThreadPoolExecutor(READERS) as pool:
    for start in range(0, len(source), 64):
      yield from pool.map(source.__getitem__, range(start, min(start + 64, len(source))))


def parse(builder: tfds.core.DatasetBuilder, raw: bytes) -> dict[str, Any]:
  """Stored bytes to a record whose image and mask stay encoded."""
  features = builder.info.features
  return features.deserialize_example_np(
    raw, decoders={field: ENCODED for field in ('image', 'mask') if field in features})


def digest(raw: bytes) -> str:
  return hashlib.sha256(raw).hexdigest()


def find_damage(path: str | os.PathLike[str]) -> list[str]:
  """Reads every record and compares it with its SHA-256 in the index; shows a progress bar.

  Returns:
    ['train 17 00000003_000: reason', ...], empty if all records are as written.
  """
  rows = read(path)
  builder = tfds.builder_from_directory(path)
  sources = {split: builder.as_data_source(split, deserialize_method=RAW) for split in splits.FRACTIONS}
  damage = [f'{split}: {sum(row["split"] == split for row in rows)} records in the index, {len(source)} stored'
            for split, source in sources.items() if len(source) != sum(row['split'] == split for row in rows)]

  def check(row: dict[str, Any]) -> str:
    try:
      raw = sources[row['split']][row['position']]
    except Exception as error:  # array_record raises different errors for different damage
      return f'unreadable ({type(error).__name__})'
    return '' if digest(raw) == row['sha256'] else 'differs from what was written'

  with futures.ThreadPoolExecutor(READERS) as pool:
    for row, reason in zip(rows, tqdm.tqdm(pool.map(check, rows), total=len(rows), unit=' records', disable=None,
                                           desc=f'verify {builder.name}', leave=False), strict=True):
      if reason:
        damage.append(f'{row["split"]} {row["position"]} {row["image_id"]}: {reason}')
  return damage


def check_prepared(path: pathlib.Path) -> None:
  """Raises ValueError with the remedy if a file beside the records is damaged, such as by a full disk."""
  remedy = f'prepare it again with {build_command.show(path, overwrite=True)}'
  try:
    about = tfds.builder_from_directory(path).info.splits
    stored = collections.Counter({split: about[split].num_examples for split in about})
  except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
    raise ValueError(f'{path} is damaged ({plain_text.as_reason(error)}): {remedy}') from error
  listed = collections.Counter(row['split'] for row in read(path))
  if stored != listed:
    raise ValueError(f'{path} is damaged: {stored.total():,} records are stored, but {NAME} lists '
                     f'{listed.total():,}; {remedy}')
