"""RSNA bone age: hand X-rays of children with bone age and sex."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records, tables

TABLE = 'boneage-training-dataset.csv'
SEXES = {True: 'M', False: 'F'}  # of the column `male`
BIN = 24  # months; splits are stratified by sex and bin of bone age

ARCHIVE = archives.Archive(
  name='rsna_bone_age', marker=TABLE,
  files=('boneage-training-dataset*', 'boneage-test-dataset*'),
  layout='boneage-training-dataset.csv, boneage-training-dataset/boneage-training-dataset/*.png '
         '(or boneage-training-dataset/*.png).',
  download='Kaggle kmader/rsna-bone-age (non-commercial research).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of rsna_bone_age; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(self, homepage='https://www.kaggle.com/datasets/kmader/rsna-bone-age',
                           value={'name': 'bone age', 'unit': 'months'})

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out: the 200 test images, whose bone age was not published."""
  pngs = [path for path in files if path.endswith('.png')]
  pictures = {stem(path): path for path in pngs if path.startswith('boneage-training-dataset/')}
  test_images = [path for path in pngs if path.startswith('boneage-test-dataset')]
  rows, ragged = tables.read_table(root / TABLE, ('id', 'boneage', 'male'))
  entries, rejects = [], [dataset.Reject('', TABLE, reason) for reason in ragged]
  for row in rows:
    name, months = read_name(row), tables.drop_point_zero(row['boneage'].strip())
    male = tables.read_flag(row['male'])
    sex = None if male is None else SEXES[male]
    if name not in pictures:
      rejects.append(dataset.Reject(name, TABLE, 'row without image'))
    elif not re.fullmatch('[1-9][0-9]{0,2}', months) or sex is None:
      rejects.append(dataset.Reject(name, pictures[name], f'missing bone age or sex: {months!r}, {row["male"]!r}'))
    else:
      entries.append(dataset.Entry(
        image_id=name, patient=name, path=root / pictures[name], stratum=f'{sex} {int(months) // BIN}',
        fields={'part': 'hand', 'sex': sex, 'value': [float(months)]}))
  in_table = set(map(read_name, rows))
  rejects += [dataset.Reject(name, path, 'image without row')
              for name, path in pictures.items() if name not in in_table]
  return entries, rejects, {'test image without bone age': len(test_images)} if test_images else {}


def read_name(row: Mapping[str, str]) -> str:
  """File name of a row's image without its suffix."""
  return tables.drop_point_zero(row['id'].strip())


def stem(path: str) -> str:
  """File name without folder and suffix."""
  return path.rsplit('/', 1)[-1].rsplit('.', 1)[0]
