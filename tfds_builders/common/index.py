"""index.csv of a prepared dataset: one row per stored record, beside the records.

| column | meaning |
|---|---|
| split, position | where the record is stored; the split is that of the rule `patient` |
| image_id, patient | as in the record |
| paper, official | the record's split by that rule; empty if it is in none |
| stratum | of the patient, see `splits.stratify`; a fraction of the patients is a fraction of each stratum |
| sha256 | of the stored bytes, which cover image, mask and labels |
"""
import csv
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import tensorflow_datasets as tfds
import tqdm

from tfds_builders.common import splits

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
  builder = tfds.builder_from_directory(path)
  partial = path / f'{NAME}.part'
  with open(partial, 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for split in splits.FRACTIONS:
      for position, raw in enumerate(scan(builder, split)):
        record = parse(builder, raw)
        image_id = record['image_id'].decode()
        table.writerow((split, position, image_id, record['patient'].decode(),
                        *(split_rules[rule].get(image_id, '') for rule in ('paper', 'official')), strata[image_id],
                        digest(raw)))
  partial.rename(path / NAME)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Rows of the index as dicts, `position` as int.

  Raises:
    FileNotFoundError, ValueError: there is no index, or it was changed since, for example by a spreadsheet; the message
      has the remedy.
  """
  try:
    with open(pathlib.Path(path, NAME), newline='', encoding='utf-8') as file:
      return [{**row, 'position': int(row['position'])} for row in csv.DictReader(file)]
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{path} has no {NAME}: prepare it again with python -m tfds_builders.build') from error
  except (ValueError, KeyError, TypeError, csv.Error) as error:
    raise ValueError(f'{path}/{NAME} is not as it was written: prepare it again with python -m tfds_builders.build '
                     '--overwrite') from error


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
