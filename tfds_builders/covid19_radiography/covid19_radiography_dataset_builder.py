"""COVID-19 Radiography Database: chest radiographs of four classes, with lung masks drawn by a model."""
import functools
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, images

CLASSES = ('COVID', 'Lung_Opacity', 'Normal', 'Viral Pneumonia')
FOLDERS = {name.lower(): name for name in CLASSES}  # the first release and some copies write NORMAL
# The present release has <class>/images/<name>.png and <class>/masks/<name>.png, the first one <class>/<name>.png.
PATH = re.compile(r'(?P<folder>[^/]+)/((?P<kind>images|masks)/)?(?P<stem>[^/]+)\.png', re.IGNORECASE)

ARCHIVE = archives.Archive(
  name='covid19_radiography', marker='Viral Pneumonia',
  files=('COVID', 'Lung_Opacity', 'LUNG_OPACITY', 'Normal', 'NORMAL', 'Viral Pneumonia'),
  layout='COVID-19_Radiography_Dataset/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/{images,masks}/*.png '
         '(the first release: {COVID,NORMAL,Viral Pneumonia}/*.png).',
  download='Kaggle tawsifurrahman/covid19-radiography-database (terms: see there, and those of its sources).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of covid19_radiography; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(
      self, homepage='https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database', findings=CLASSES,
      relation='exclusive', mask=('background', 'lung'))

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out; the folder states the class, the name is all that is known of a patient."""
  pictures, masks, rejects = {}, {}, []
  for path in listed:
    match = PATH.fullmatch(path)
    name = FOLDERS.get(match['folder'].lower()) if match else None
    if not name:
      rejects.append(dataset.Reject('', path, 'file that is no image of this archive'))
    else:
      (masks if (match['kind'] or '').lower() == 'masks' else pictures)[name, match['stem']] = path
  rejects += [dataset.Reject(stem, masks[name, stem], 'mask without image')
              for name, stem in masks if (name, stem) not in pictures]
  entries = [
    dataset.Entry(
      image_id=stem, patient=stem, path=root / path, stratum=name, group=name,
      mask=functools.partial(read_lungs, root / masks[name, stem]) if (name, stem) in masks else None,
      fields={'part': 'chest', 'label_mask': [True] * len(CLASSES), 'present': [float(name == other) for other in CLASSES]})
    for (name, stem), path in pictures.items()]
  return entries, rejects, {}


def read_lungs(path):
  """HW uint8, 1 on the lungs; the files are black and white, in one channel or three equal ones."""
  return (images.read(path) > 0).astype('uint8')
