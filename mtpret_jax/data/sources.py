"""A prepared dataset as a random-access source of records."""

import dataclasses
import pathlib

import tensorflow_datasets as tfds

ENCODED = tfds.decode.SkipDecoding()


@dataclasses.dataclass(frozen=True)
class Source:
  """`records[i]` is record i of one split as a dict, image and mask still encoded; `about` is what the builder
  recorded of the whole dataset: names of findings, unit of the value, split rule."""

  name: str
  split: str
  version: str
  about: dict
  records: object

  def __len__(self):
    return len(self.records)


def open_source(name, data_dir, stored, split):
  """`stored` is the builder's size config: 'original', '512' or '256'. Raises FileNotFoundError with the command that
  prepares the dataset."""
  versions = sorted(pathlib.Path(data_dir, name, stored).glob('*.*.*/dataset_info.json'))
  if not versions:
    raise FileNotFoundError(
      f'{name} is not prepared under {data_dir} (looked for {name}/{stored}/<version>/dataset_info.json): run '
      f'python -m tfds_builders.build {name} --archives <folder of downloads> --data_dir {data_dir} --size {stored}')
  builder = tfds.builder_from_directory(versions[-1].parent)
  undecoded = {field: ENCODED for field in ('image', 'mask') if field in builder.info.features}
  records = builder.as_data_source(split, decoders=undecoded)
  return Source(name, split, str(builder.version), dict(builder.info.metadata or {}), records)
