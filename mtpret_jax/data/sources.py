"""A prepared dataset as a random-access source of records."""

import csv
import dataclasses
import hashlib
import math
import pathlib

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

ENCODED = tfds.decode.SkipDecoding()
SPLIT_RULES = ('patient', 'paper', 'official')  # records are stored by the first; the builders' splits.py defines them
SPLITS = ('train', 'validation', 'test')


class MissingSplit(ValueError):
  """The dataset has no such split by this rule."""


@dataclasses.dataclass(frozen=True)
class Source:
  """`records[i]` is record i of one split as a dict, image and mask still encoded; `about` is what the builder
  recorded of the whole dataset: names of findings, unit of the value, split rule."""

  name: str
  split: str
  version: str
  about: dict
  records: object
  split_rule: str = 'patient'

  def __len__(self):
    return len(self.records)


@dataclasses.dataclass(frozen=True)
class Images:
  """Records with nothing but their encoded image and its name: TFDS takes five times as long for all their fields."""

  raw: object

  def __len__(self):
    return len(self.raw)

  def __getitem__(self, index):
    features = tf_example_pb2.Example.FromString(self.raw[index]).features.feature
    return {field: features[field].bytes_list.value[0] for field in ('image', 'image_id')}


@dataclasses.dataclass(frozen=True)
class View:
  """Records of several stored splits in an order of their own: record i lies at places[i] = (split, position)."""

  stored: dict
  places: list

  def __len__(self):
    return len(self.places)

  def __getitem__(self, index):
    split, position = self.places[index]
    return self.stored[split][position]


def open_source(name, data_dir, stored_size, split, split_rule='patient', images_only=False, fraction=1.0):
  """`stored_size` is the builder's size config: 'original', '512' or '256'; `split_rule` says who is in `split`; with
  `images_only` a record is its image alone, which is all that stage 1 reads; `fraction` of its patients are kept, those
  of a smaller fraction are among those of a larger. Raises FileNotFoundError with the
  command that prepares the dataset, and MissingSplit where the rule leaves it empty."""
  versions = sorted(pathlib.Path(data_dir, name, stored_size).glob('*.*.*/dataset_info.json'))
  if not versions:
    raise FileNotFoundError(
      f'{name} is not prepared under {data_dir} (looked for {name}/{stored_size}/<version>/dataset_info.json): run '
      f'python -m tfds_builders.build {name} --archives <folder of downloads> --data_dir {data_dir} --size {stored_size}')
  folder = versions[-1].parent
  builder = tfds.builder_from_directory(folder)
  if split_rule == 'patient' and fraction == 1:
    records = open_split(builder, split, images_only)
  else:
    places = read_places(folder, name, split, split_rule, fraction)
    records = View({part: open_split(builder, part, images_only) for part in SPLITS}, places)
  return Source(name, split, str(builder.version), dict(builder.info.metadata or {}), records, split_rule)


def open_split(builder, split, images_only):
  """The records of a stored split, images and masks still encoded."""
  if images_only:
    return Images(builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES))
  undecoded = {field: ENCODED for field in ('image', 'mask') if field in builder.info.features}
  return builder.as_data_source(split, decoders=undecoded)


def read_places(folder, name, split, split_rule, fraction):
  """[(stored split, position)] of the records that `split_rule` puts into `split`, from the builder's index.csv; with a
  `fraction` those of its patients who come first by SHA-256, at least one."""
  with open(folder / 'index.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  chosen = [row for row in rows if (row['split'] if split_rule == 'patient' else row[split_rule]) == split]
  if not chosen:
    there = sorted({row[split_rule] for row in rows} - {''})
    raise MissingSplit(f'{name} has no {split} images by the rule {split_rule!r}'
                       f'{", only " + " and ".join(there) if there else " at all"}: try --config.data.split=patient')
  patients = sorted({row['patient'] for row in chosen}, key=lambda patient: hashlib.sha256(patient.encode()).digest())
  kept = set(patients[:math.ceil(fraction * len(patients))])
  return [(row['split'], int(row['position'])) for row in chosen if row['patient'] in kept]
