"""What lies where in a prepared dataset: index.csv, one row for each stored record, beside the records.

| column | meaning |
|---|---|
| split, position | where the record is stored, which is its split by the rule `patient` |
| image_id, patient | as in the record |
| paper, official | its split by that rule; empty if it is in none |
| sha256 | of the stored record: image, mask, labels and all |
"""
import csv
import hashlib
import os
import pathlib
from concurrent import futures

import tensorflow_datasets as tfds
import tqdm

from tfds_builders.common import splits

NAME = 'index.csv'
COLUMNS = ('split', 'position', 'image_id', 'patient', 'paper', 'official', 'sha256')
RAW = tfds.decode.DeserializeMethod.RAW_BYTES
ENCODED = tfds.decode.SkipDecoding()
READERS = min(8, os.cpu_count() or 1)  # threads; reading and hashing let go of the interpreter lock


def write(path, rules):
  """Reads every record back and writes the index, last of all and at once, so that half an index is never seen.

  Args:
    path: pathlib.Path of the prepared version.
    rules: {'paper' | 'official': {image_id: split}}.
  """
  builder = tfds.builder_from_directory(path)
  half = path / f'{NAME}.part'
  with open(half, 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for split in splits.SHARES:
      for position, raw in enumerate(scan(builder, split)):
        record = parse(builder, raw)
        image_id = record['image_id'].decode()
        table.writerow((split, position, image_id, record['patient'].decode(),
                        *(rules[rule].get(image_id, '') for rule in ('paper', 'official')), digest(raw)))
  half.rename(path / NAME)


def read(path):
  """Rows of the index as dicts, `position` as int; raises FileNotFoundError with the remedy."""
  try:
    with open(pathlib.Path(path, NAME), newline='', encoding='utf-8') as file:
      return [{**row, 'position': int(row['position'])} for row in csv.DictReader(file)]
  except FileNotFoundError as error:
    raise FileNotFoundError(f'{path} has no {NAME}: prepare it again with python -m tfds_builders.build') from error


def scan(builder, split):
  """Yields the stored bytes of each record of a split, in order."""
  source = builder.as_data_source(split, deserialize_method=RAW)
  with futures.ThreadPoolExecutor(READERS) as pool:
    for start in range(0, len(source), 64):
      yield from pool.map(source.__getitem__, range(start, min(start + 64, len(source))))


def parse(builder, raw):
  """Stored bytes to a record whose image and mask are still encoded."""
  features = builder.info.features
  return features.deserialize_example_np(
    raw, decoders={field: ENCODED for field in ('image', 'mask') if field in features})


def digest(raw):
  return hashlib.sha256(raw).hexdigest()


def find_damage(path):
  """Reads everything again, with a progress bar.

  Returns:
    ['train 17 00000003_000: reason', ...], empty if every record is the one that was written.
  """
  rows = read(path)
  builder = tfds.builder_from_directory(path)
  sources = {split: builder.as_data_source(split, deserialize_method=RAW) for split in splits.SHARES}
  bad = [f'{split}: {sum(row["split"] == split for row in rows)} records in the index, {len(source)} stored'
         for split, source in sources.items() if len(source) != sum(row['split'] == split for row in rows)]

  def check(row):
    try:
      raw = sources[row['split']][row['position']]
    except Exception as error:  # whatever array_record makes of damage
      return f'unreadable ({type(error).__name__})'
    return '' if digest(raw) == row['sha256'] else 'not what was written'

  with futures.ThreadPoolExecutor(READERS) as pool:
    for row, reason in zip(rows, tqdm.tqdm(pool.map(check, rows), total=len(rows), unit=' records', disable=None,
                                           desc=f'verify {builder.name}', leave=False), strict=True):
      if reason:
        bad.append(f'{row["split"]} {row["position"]} {row["image_id"]}: {reason}')
  return bad
