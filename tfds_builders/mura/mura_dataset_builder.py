"""MURA: X-rays of seven parts of the arm; each study is normal or abnormal."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records, tables

PATH = re.compile(r'(?P<folder>train|valid)/XR_(?P<part>[A-Z]+)/(?P<patient>patient\d+)/'
                  r'study\d+_(?P<label>positive|negative)/[^/]+\.png')

OFFICIAL = {'train': 'train', 'valid': 'test'}  # its own test set is not public: others test on the public "valid"

ARCHIVE = archives.Archive(
  name='mura', marker='train/XR_*',
  files=('train', 'valid', 'train_image_paths.csv', 'valid_image_paths.csv'),
  layout='MURA-v1.1/{train,valid}/XR_*/patient*/study*_{positive,negative}/image*.png, '
         'MURA-v1.1/train_image_paths.csv, MURA-v1.1/valid_image_paths.csv.',
  download='MURA-v1.1.zip from https://stanfordmlgroup.github.io/competitions/mura/ after registration (Stanford '
           'Dataset Research Use Agreement: non-commercial, no redistribution).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of mura; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://stanfordmlgroup.github.io/competitions/mura/', findings=('abnormal',))

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. Paths give all labels; the CSV files list what should exist."""
  entries, rejects = [], []
  lists = [path for path in files if path.endswith('.csv')]
  in_tables = {row[0].split('/', 1)[-1] for table in lists for row in tables.read_rows(root / table)}
  for path in [path for path in files if path not in lists]:
    match = PATH.fullmatch(path)
    if not match:
      rejects.append(dataset.Reject('', path, 'not an image of this archive'))
    elif lists and path not in in_tables:
      rejects.append(dataset.Reject(path[:-4], path, 'image without row'))
    else:
      part = match['part'].lower()
      entries.append(dataset.Entry(
        image_id=path[:-4], patient=match['patient'], path=root / path, stratum=f'{part} {match["label"]}',
        paper_group=f'{part} {match["label"]}', official_split=OFFICIAL[match['folder']],
        fields={'part': part, 'study': path.rsplit('/', 1)[0], 'label_mask': [True],
                'present': [float(match['label'] == 'positive')]}))
  rejects += [dataset.Reject(path[:-4], path or lists[0], 'row without image')
              for path in sorted(in_tables - set(files))]
  return entries, rejects, {}
