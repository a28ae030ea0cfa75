"""A prepared dataset as a random-access source of records."""

import csv
import dataclasses
import hashlib
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

ENCODED = tfds.decode.SkipDecoding()
SPLIT_RULES = ('patient', 'paper', 'official')  # defined in the builders' splits.py; records are stored by 'patient'
SPLITS = ('train', 'validation', 'test')


class MissingSplit(ValueError):
  """The split rule gives the dataset no such split."""


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
    split_rule: one of SPLIT_RULES.
  """

  name: str
  split: str
  version: str
  about: Mapping[str, Any]
  records: Records
  split_rule: str = 'patient'

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
                images_only: bool = False, fraction: float = 1.0) -> Source:
  """Opens one split of a prepared dataset.

  Args:
    stored_size: the builder's size: 'original', '512' or '256'.
    split: train, validation or test.
    split_rule: which patients or images are in which split; see SPLIT_RULES.
    images_only: records have their image and its name only, which is all that stage 1 reads.
    fraction: share of the split's patients. The patients of a smaller fraction are among those of a larger one.

  Raises:
    FileNotFoundError: the dataset is not prepared; the message has the command that prepares it.
    MissingSplit: the split rule leaves the split empty.
  """
  folder = find_newest_version(pathlib.Path(data_dir, name, stored_size))
  if folder is None:
    raise FileNotFoundError(
      f'{name} is not prepared under {data_dir} (there is no {name}/{stored_size}/<version>/dataset_info.json): run '
      f'python -m tfds_builders.build {name} --archives <folder of downloads> --data_dir {data_dir} '
      f'--size {stored_size}')
  builder = tfds.builder_from_directory(folder)
  records: Records
  if split_rule == 'patient' and fraction == 1:
    records = open_split(builder, split, images_only)
  else:
    positions = read_positions(folder, name, split, split_rule, fraction)
    records = Subset({part: open_split(builder, part, images_only) for part in SPLITS}, positions)
  return Source(name, split, str(builder.version), dict(builder.info.metadata or {}), records, split_rule)


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


def read_positions(folder: pathlib.Path, name: str, split: str, split_rule: str,
                   fraction: float) -> list[tuple[str, int]]:
  """[(stored split, position)] of the records in `split` by `split_rule`, from the builder's index.csv.

  With a `fraction` below 1, only the records of the patients whose hashes sort first; at least one patient.
  """
  with open(folder / 'index.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  chosen = [row for row in rows if (row['split'] if split_rule == 'patient' else row[split_rule]) == split]
  if not chosen:
    there = sorted({row[split_rule] for row in rows} - {''})
    raise MissingSplit(f'{name} has no {split} images under the split rule {split_rule!r}'
                       f'{", only " + " and ".join(there) if there else " at all"}: try --config.data.split=patient')
  # Ordered by a hash, not by a random draw: the patients of 10 % are then a subset of those of 20 %.
  patients = sorted({row['patient'] for row in chosen}, key=lambda patient: hashlib.sha256(patient.encode()).digest())
  kept = set(patients[:math.ceil(fraction * len(patients))])
  return [(row['split'], int(row['position'])) for row in chosen if row['patient'] in kept]
