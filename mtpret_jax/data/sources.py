"""A prepared dataset as a random-access source of records."""

import collections
import csv
import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

ENCODED = tfds.decode.SkipDecoding()
SPLIT_RULES = ('patient', 'paper', 'official')  # defined in the builders' splits.py; records are stored by 'patient'
SPLITS = ('train', 'validation', 'test')
WHOLE = 'whole'  # in place of a split rule: every image is a training image


class MissingSplit(ValueError):
  """The split rule gives the dataset no such split."""


class OutdatedIndex(ValueError):
  """The dataset was prepared by an earlier version, whose index.csv lacks what is needed now."""


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
  """

  name: str
  split: str
  version: str
  about: Mapping[str, Any]
  records: Records
  split_rule: str = 'patient'
  read_patients: Callable[[], Sequence[str]] | None = None

  def __len__(self) -> int:
    return len(self.records)


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
    positions = read_positions(folder, name, split, split_rule, fraction, fraction_seed)
    records = Subset({part: open_split(builder, part, images_only) for part in SPLITS}, positions)
  patients = functools.partial(read_patients, folder, name, split, split_rule, whole) if fraction == 1 else None
  return Source(name, split, str(builder.version), dict(builder.info.metadata or {}), records,
                WHOLE if whole else split_rule, patients)


def find_folder(name: str, data_dir: str | pathlib.Path, stored_size: str) -> pathlib.Path:
  """The folder of the newest prepared version. Raises FileNotFoundError with the command that prepares the dataset."""
  folder = find_newest_version(pathlib.Path(data_dir, name, stored_size))
  if folder is None:
    raise FileNotFoundError(
      f'{name} is not prepared under {data_dir} (there is no {name}/{stored_size}/<version>/dataset_info.json): run '
      f'python -m tfds_builders.build {name} --archives <folder of downloads> --data_dir {data_dir} '
      f'--size {stored_size}')
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


def read_positions(folder: pathlib.Path, name: str, split: str, split_rule: str, fraction: float,
                   fraction_seed: int = 0) -> list[tuple[str, int]]:
  """[(stored split, position)] of the records in `split` by `split_rule`, from the builder's index.csv.

  With a `fraction` below 1, only the records of the patients whose hashes sort first in their stratum; at least one
  patient of each.
  """
  chosen = read_rows(folder, name, split, split_rule)
  shares = rank_patients(chosen, fraction_seed)
  return [(row['split'], int(row['position'])) for row in chosen if shares[row['patient']] < fraction]


def read_patient_shares(name: str, data_dir: str | pathlib.Path, stored_size: str, split: str, split_rule: str,
                        seed: int = 0) -> dict[str, float]:
  """{patient: the share above which a fraction of the split keeps it}, see `rank_patients`. Raises as `open_source`."""
  return rank_patients(read_rows(find_folder(name, data_dir, stored_size), name, split, split_rule), seed)


def read_patients(folder: pathlib.Path, name: str, split: str, split_rule: str, whole: bool) -> list[str]:
  """The patient of each record of `open_source` without a fraction, in the order of the records. Raises MissingSplit
  and OutdatedIndex."""
  rows = read_index(folder, name) if whole else read_rows(folder, name, split, split_rule)
  if whole or split_rule == 'patient':  # in the order in which they are stored
    rows = sorted(rows, key=lambda row: (SPLITS.index(row['split']), int(row['position'])))
  return [row['patient'] for row in rows]


def read_rows(folder: pathlib.Path, name: str, split: str, split_rule: str) -> list[dict[str, str]]:
  """The rows of index.csv in `split` by `split_rule`. Raises MissingSplit and OutdatedIndex."""
  rows, column = read_index(folder, name), 'split' if split_rule == 'patient' else split_rule
  chosen = [row for row in rows if row[column] == split]
  if not chosen:
    there = sorted({row[column] for row in rows} - {''})
    raise MissingSplit(f'{name} has no {split} images under the split rule {split_rule!r}'
                       f'{", only " + " and ".join(there) if there else " at all"}: try --config.data.split=patient')
  return chosen


def read_index(folder: pathlib.Path, name: str) -> list[dict[str, str]]:
  """The rows of index.csv. Raises OutdatedIndex if it has no strata; its official splits are outdated then, too."""
  with open(folder / 'index.csv', newline='', encoding='utf-8') as file:
    table = csv.DictReader(file)
    if 'stratum' not in (table.fieldnames or ()):
      raise OutdatedIndex(f'{folder} was prepared by an earlier version, and its index.csv has no column stratum: run '
                          f'python -m tfds_builders.build {name} --archives <folder of downloads> '
                          f'--data_dir {folder.parents[2]} --size {folder.parent.name} --overwrite')
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
