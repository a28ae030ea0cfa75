"""RSNA bone age: hand radiographs of children with the age of the bones."""
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset

SEXES = {'true': 'M', 'false': 'F'}
BIN = 24  # months; splits are balanced by sex and bin of bone age

ARCHIVE = archives.Archive(
  name='rsna_bone_age', marker='boneage-training-dataset.csv',
  files=('boneage-training-dataset*', 'boneage-test-dataset*'),
  layout='boneage-training-dataset.csv, boneage-training-dataset/boneage-training-dataset/*.png '
         '(the folder may or may not be doubled).',
  download='Kaggle kmader/rsna-bone-age (non-commercial research).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of rsna_bone_age; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://www.kaggle.com/datasets/kmader/rsna-bone-age',
                           value={'name': 'bone age', 'unit': 'months'})

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the 200 images of the challenge's test, which have no bone age."""
  pngs = [path for path in listed if path.endswith('.png')]
  images = {stem(path): path for path in pngs if path.startswith('boneage-training-dataset/')}
  untold = [path for path in pngs if path.startswith('boneage-test-dataset')]
  rows, ragged = archives.read_table(root / ARCHIVE.marker, ('id', 'boneage', 'male'))
  entries, rejects = [], [dataset.Reject('', ARCHIVE.marker, reason) for reason in ragged]
  for row in rows:
    name, months, sex = row['id'].strip(), row['boneage'].strip(), SEXES.get(row['male'].strip().lower())
    if name not in images:
      rejects.append(dataset.Reject(name, ARCHIVE.marker, 'row without image'))
    elif not re.fullmatch('[1-9][0-9]{0,2}', months) or sex is None:
      rejects.append(dataset.Reject(name, images[name], f'no bone age or sex: {months!r}, {row["male"]!r}'))
    else:
      entries.append(dataset.Entry(
        image_id=name, patient=name, path=root / images[name], stratum=f'{sex} {int(months) // BIN}',
        fields={'part': 'hand', 'sex': sex, 'value': [float(months)]}))
  tabled = {row['id'].strip() for row in rows}
  rejects += [dataset.Reject(name, path, 'image without row') for name, path in images.items() if name not in tabled]
  return entries, rejects, {'test image without bone age': len(untold)} if untold else {}


def stem(path):
  return path.rsplit('/', 1)[-1].rsplit('.', 1)[0]
