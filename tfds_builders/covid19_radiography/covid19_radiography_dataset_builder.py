"""COVID-19 Radiography Database: chest X-rays of four classes, with lung masks made by a model."""
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records
from tfds_builders.common.masks import read_foreground

CLASSES = ('COVID', 'Lung_Opacity', 'Normal', 'Viral Pneumonia')
FOLDERS = {name.lower(): name for name in CLASSES}  # the first release and some copies write NORMAL
# The current release has <class>/images/<name>.png and <class>/masks/<name>.png; the first has <class>/<name>.png.
PATH = re.compile(r'(?P<folder>[^/]+)/((?P<content>images|masks)/)?(?P<stem>[^/]+)\.png', re.IGNORECASE)

ARCHIVE = archives.Archive(
  name='covid19_radiography', marker='Viral Pneumonia',
  files=('COVID', 'Lung_Opacity', 'LUNG_OPACITY', 'Normal', 'NORMAL', 'Viral Pneumonia'),
  layout='COVID-19_Radiography_Dataset/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/{images,masks}/*.png '
         '(the first release: {COVID,NORMAL,Viral Pneumonia}/*.png).',
  download='Kaggle tawsifurrahman/covid19-radiography-database (its terms, and those of its sources, apply).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of covid19_radiography; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database', findings=CLASSES,
      relation='exclusive', mask=('background', 'lung'))

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. The folder gives the class; each file counts as one patient."""
  pictures: dict[tuple[str, str], str] = {}
  masks: dict[tuple[str, str], str] = {}
  rejects = []
  for path in files:
    match = PATH.fullmatch(path)
    name = FOLDERS.get(match['folder'].lower()) if match else None
    if not match or not name:
      rejects.append(dataset.Reject('', path, 'not an image of this archive'))
    else:
      (masks if (match['content'] or '').lower() == 'masks' else pictures)[name, match['stem']] = path
  rejects += [dataset.Reject(stem, masks[name, stem], 'mask without image')
              for name, stem in masks if (name, stem) not in pictures]
  entries = [
    dataset.Entry(
      image_id=stem, patient=stem, path=root / path, stratum=name, paper_group=name,
      mask=functools.partial(read_foreground, root / masks[name, stem]) if (name, stem) in masks else None,
      fields={'part': 'chest', 'label_mask': [True] * len(CLASSES),
              'present': [float(name == other) for other in CLASSES]})
    for (name, stem), path in pictures.items()]
  return entries, rejects, {}
