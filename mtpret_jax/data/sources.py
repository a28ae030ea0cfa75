"""A prepared dataset as a random-access source of records."""

import collections
import csv
import dataclasses
import functools
import hashlib
import logging
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mtpret_jax.data.labelled_records import agrees
from tfds_builders.common import build_command, label_columns

ENCODED = tfds.decode.SkipDecoding()
SPLIT_RULES = ('patient', 'paper', 'official')  # defined in the builders' splits.py; records are stored by 'patient'
SPLITS = ('train', 'validation', 'test')
SAMPLES = 8  # records of a split that are compared with its index
WHOLE = 'whole'  # in place of a split rule: every image is a training image

log = logging.getLogger(__name__)


class MissingSplit(ValueError):
  """The split rule gives the dataset no such split."""


class OutdatedIndex(ValueError):
  """index.csv is of an earlier version and lacks what is needed now, or it is not that of the records."""


class Records(Protocol):
  """Random access to records, each a dict of fields."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Source:
  """One split of a prepared dataset.

  Attributes:
    name: the name of the dataset.
    split: train, validation or test.
    version: of the prepared dataset, such as 1.0.0.
    about: the builder's metadata of the whole dataset: names of findings, unit of the value, mask and box classes.
    records: record i is a dict of fields, with image and mask still encoded.
    split_rule: one of SPLIT_RULES, or WHOLE.
    read_patients: () -> the patient of each record, read from index.csv when it is called. None for a share of a split.
    read_labels: () -> the label fields of each record without reading it, see `read_labels`. None, or a
      function that returns None, where only the records have them.
    folder: of the prepared version; None if there is none, as in tests.
  """

  name: str
  split: str
  version: str
  about: Mapping[str, Any]
  records: Records
  split_rule: str = 'patient'
  read_patients: Callable[[], Sequence[str]] | None = None
  read_labels: Callable[[], Sequence[Mapping[str, Any]] | None] | None = None
  folder: pathlib.Path | None = None

  def __len__(self) -> int:
    return len(self.records)

  def find_labels(self) -> Records | Sequence[Mapping[str, Any]]:
    """What has the label fields of each record: what is read from index.csv, or else the records themselves."""
    labels = self.read_labels() if self.read_labels else None
    return self.records if labels is None else labels


@dataclasses.dataclass(frozen=True)
class ImageRecords:
  """Records reduced to their encoded image and its name. Parsing all fields would take TFDS five times as long."""

  raw: Sequence[bytes]

  def __len__(self) -> int:
    return len(self.raw)

  def __getitem__(self, index: int) -> dict[str, Any]:
    features = tf_example_pb2.Example.FromString(self.raw[index]).features.feature
    return {field: features[field].bytes_list.value[0] for field in ('image', 'image_id')}


@dataclasses.dataclass(frozen=True)
class Subset:
  """Records of several stored splits in an order of its own: record i is at positions[i] = (stored split, position)."""

  stored: Mapping[str, Records]
  positions: Sequence[tuple[str, int]]

  def __len__(self) -> int:
    return len(self.positions)

  def __getitem__(self, index: int) -> dict[str, Any]:
    split, position = self.positions[index]
    return self.stored[split][position]


def open_source(name: str, data_dir: str | pathlib.Path, stored_size: str, split: str, split_rule: str = 'patient',
                images_only: bool = False, fraction: float = 1.0, fraction_seed: int = 0,
                whole: bool = False) -> Source:
  """Opens one split of a prepared dataset.

  Args:
    stored_size: the builder's size: 'original', '512' or '256'.
    split: train, validation or test.
    split_rule: which patients or images are in which split; see SPLIT_RULES.
    images_only: records have their image and its name only, which is all that stage 1 reads.
    fraction: share of the split's patients, the same in each stratum of labels, rounded up. The patients of a smaller
      fraction are among those of a larger one.
    fraction_seed: other seeds keep other patients, see `rank_patients`.
    whole: the split has all images of the dataset, whatever the split rule; only for training splits.

  Raises:
    FileNotFoundError: the dataset is not prepared; the message has the command that prepares it.
    MissingSplit: the split rule leaves the split empty.
    OutdatedIndex: the dataset was prepared by an earlier version.
  """
  folder = find_folder(name, data_dir, stored_size)
  builder = tfds.builder_from_directory(folder)
  records: Records
  if whole:
    stored = {part: open_split(builder, part, images_only) for part in SPLITS}
    records = Subset(stored, [(part, position) for part in SPLITS for position in range(len(stored[part]))])
  elif split_rule == 'patient' and fraction == 1:
    records = open_split(builder, split, images_only)
  else:
    rows = read_rows(folder, name, split, split_rule, fraction, fraction_seed)
    positions = [(row['split'], int(row['position'])) for row in rows]
    records = Subset({part: open_split(builder, part, images_only) for part in SPLITS}, positions)
  read = functools.partial(read_rows, folder, name, split, split_rule, fraction, fraction_seed, whole)
  return Source(name, split, str(builder.version), dict(builder.info.metadata or {}), records,
                WHOLE if whole else split_rule, functools.partial(read_patients, read) if fraction == 1 else None,
                functools.partial(read_labels, read, folder, records), folder)


def find_folder(name: str, data_dir: str | pathlib.Path, stored_size: str) -> pathlib.Path:
  """The folder of the newest prepared version. Raises FileNotFoundError with the command that prepares the dataset."""
  versions = pathlib.Path(data_dir, name, stored_size)
  folder = find_newest_version(versions)
  if folder is None:
    raise FileNotFoundError(
      f'{name} is not prepared under {data_dir} (there is no {name}/{stored_size}/<version>/dataset_info.json): run '
      f'{build_command.show(versions / "<version>")}')
  return folder


def find_newest_version(folder: pathlib.Path) -> pathlib.Path | None:
  """The folder of the newest prepared version, such as 1.10.0; None if there is none.

  TFDS prepares in a folder such as 1.0.0.incompleteABC123, which an interrupted preparation leaves behind.
  """
  versions = [path.parent for path in folder.glob('*.*.*/dataset_info.json')
              if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)]
  # as numbers: as text, 1.9.0 would come after 1.10.0
  return max(versions, key=lambda path: [int(number) for number in path.name.split('.')], default=None)


def open_split(builder: tfds.core.DatasetBuilder, split: str, images_only: bool) -> Records:
  """The records of a stored split, with images and masks still encoded."""
  if images_only:
    return ImageRecords(builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES))
  undecoded = {field: ENCODED for field in ('image', 'mask') if field in builder.info.features}
  return builder.as_data_source(split, decoders=undecoded)


def read_patient_shares(name: str, data_dir: str | pathlib.Path, stored_size: str, split: str, split_rule: str,
                        seed: int = 0) -> dict[str, float]:
  """{patient: the share above which a fraction of the split keeps it}, see `rank_patients`. Raises as `open_source`."""
  return rank_patients(read_split(find_folder(name, data_dir, stored_size), name, split, split_rule), seed)


def read_patients(read: Callable[[], Sequence[Mapping[str, str]]]) -> list[str]:
  """The patient of each record of a source, in the order of the records. `read`: () -> its rows, see `read_rows`."""
  return [row['patient'] for row in read()]


def read_labels(read: Callable[[], Sequence[Mapping[str, str]]], folder: pathlib.Path,
                records: Records) -> list[dict[str, Any]] | None:
  """`image_id`, `patient` and the labels of each record of a source, from index.csv; None if an earlier version wrote
  it without labels. A few records are compared with their rows. That finds an index of another order or size, not a
  few labels that changed.

  Args:
    read: () -> the rows of the records, see `read_rows`.
    folder: of the prepared version.

  Raises:
    OutdatedIndex: the index was changed, or is not that of the records.
  """
  path = folder / 'index.csv'
  if not path.exists() or not label_columns.has_labels(path):
    return None
  remedy = f'prepare the dataset again with {build_command.show(folder, overwrite=True)}'
  rows = read()
  try:
    labels = [{'image_id': row['image_id'].encode(), 'patient': row['patient'].encode()} | cells
              for row, cells in zip(rows, label_columns.read_cells(rows), strict=True)]
  except ValueError as error:
    raise OutdatedIndex(f'{path} is not as it was written ({error}): {remedy}') from error
  if len(rows) != len(records):
    raise OutdatedIndex(f'{path} lists {len(rows):,} records of a split that has {len(records):,}: {remedy}')
  for place in {*range(0, len(rows), -(-len(rows) // SAMPLES)), len(rows) - 1}:
    record = records[place]
    if record['image_id'] != labels[place]['image_id'] or not agrees(record, labels[place]):
      raise OutdatedIndex(f'{path} does not describe the records beside it, such as {rows[place]["image_id"]!r}: '
                          f'{remedy}')
  return labels


@functools.cache  # once for all splits and tasks
def advise_update(folder: pathlib.Path) -> None:
  log.info('%s has no labels in index.csv, so all records are read, about a millisecond each. To add labels: %s',
           folder, build_command.show(folder))


def read_rows(folder: pathlib.Path, name: str, split: str, split_rule: str, fraction: float = 1.0,
              fraction_seed: int = 0, whole: bool = False) -> list[dict[str, str]]:
  """The rows of index.csv of the records of `open_source`, in their order.

  With a `fraction` below 1, only the records of the patients whose hashes sort first in their stratum; at least one
  patient of each. Raises MissingSplit and OutdatedIndex.
  """
  rows = read_index(folder) if whole else read_split(folder, name, split, split_rule)
  if fraction < 1 and not whole:
    shares = rank_patients(rows, fraction_seed)
    return [row for row in rows if shares[row['patient']] < fraction]
  if whole or split_rule == 'patient':  # in the order in which they are stored
    return sorted(rows, key=lambda row: (SPLITS.index(row['split']), int(row['position'])))
  return rows


def read_split(folder: pathlib.Path, name: str, split: str, split_rule: str) -> list[dict[str, str]]:
  """The rows of index.csv in `split` by `split_rule`. Raises MissingSplit and OutdatedIndex."""
  rows, column = read_index(folder), 'split' if split_rule == 'patient' else split_rule
  chosen = [row for row in rows if row[column] == split]
  if not chosen:
    there = sorted({row[column] for row in rows} - {''})
    raise MissingSplit(f'{name} has no {split} images under the split rule {split_rule!r}'
                       f'{", only " + " and ".join(there) if there else " at all"}: try --config.data.split=patient')
  return chosen


def read_index(folder: pathlib.Path) -> list[dict[str, str]]:
  """The rows of index.csv. Raises OutdatedIndex if it has no strata; its official splits are outdated then, too."""
  with open(folder / 'index.csv', newline='', encoding='utf-8') as file:
    table = csv.DictReader(file)
    if 'stratum' not in (table.fieldnames or ()):
      raise OutdatedIndex(f'{folder} was prepared by an earlier version, and its index.csv has no column stratum: run '
                          f'{build_command.show(folder, overwrite=True)}')
    return list(table)


def rank_patients(rows: Sequence[Mapping[str, str]], seed: int = 0) -> dict[str, float]:
  """{patient: rank / number of patients} within the patient's stratum, from 0 to below 1.

  A fraction keeps the patients whose number is below it: ceil(fraction * n) of the n patients of a stratum. They are
  ordered by a hash, not by a random draw: the patients of 10 % are then a subset of those of 20 %. The hash is that of
  the patient, or of 'seed:patient' if the seed is not 0.
  """
  prefix = f'{seed}:' if seed else ''
  strata = collections.defaultdict(set)
  for row in rows:
    strata[row['stratum']].add(row['patient'])
  return {patient: rank / len(patients) for patients in strata.values() for rank, patient in enumerate(
    sorted(patients, key=lambda patient: hashlib.sha256(f'{prefix}{patient}'.encode()).digest()))}
