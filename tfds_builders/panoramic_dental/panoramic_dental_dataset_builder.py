"""Panoramic dental radiographs with the mandible drawn by an expert."""
import functools
import re

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, images

CLASSES = ('background', 'mandible')
TORN = ('22', '110')  # drawings that lost parts: what is there is mandible, of the rest nobody knows

ARCHIVE = archives.Archive(
  name='panoramic_dental', marker='Segmentation1',
  files=('Images', 'Segmentation1'),
  layout='Images/*.png and Segmentation1/*.png, with the same numbers.',
  download='https://data.mendeley.com/datasets/hxt48yk462 (DentalPanoramicXrays.zip, CC BY-NC 3.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of panoramic_dental; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://data.mendeley.com/datasets/hxt48yk462', mask=CLASSES)

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out; the number of an image is all that is known of its patient."""
  pictures, drawings = ({match[1]: path for path in listed if (match := re.fullmatch(rf'{folder}/(\d+)\.png', path))}
                        for folder in ('Images', 'Segmentation1'))
  rejects = [dataset.Reject(name, pictures[name], 'image without segmentation') for name in pictures.keys() - drawings]
  rejects += [dataset.Reject(name, drawings[name], 'segmentation without image') for name in drawings.keys() - pictures]
  entries = [
    dataset.Entry(image_id=name, patient=name, path=root / pictures[name], fields={'part': 'jaw'},
                 mask=functools.partial(read_mandible, root / drawings[name], torn=name in TORN))
    for name in sorted(pictures.keys() & drawings, key=int)]
  return entries, rejects, {}


def read_mandible(path, torn=False):
  """HW uint8, 1 on the mandible and 0, or 255 in a torn drawing, elsewhere.

  A drawing is the image with all but the mandible blanked to one grey.
  """
  drawing = images.read(path)
  return np.where(drawing != drawing[0, 0], np.uint8(1), np.uint8(dataset.UNANNOTATED if torn else 0))
