"""Panoramic dental X-rays with the mandible outlined by an expert."""
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, images, label_columns, records

CLASSES = ('background', 'mandible')
INCOMPLETE = ('22', '110')  # segmentations that lost parts; pixels outside what is left count as not annotated

ARCHIVE = archives.Archive(
  name='panoramic_dental', marker='Segmentation1',
  files=('Images', 'Segmentation1'),
  layout='Images/*.png and Segmentation1/*.png, with the same numbers.',
  download='https://data.mendeley.com/datasets/hxt48yk462 (DentalPanoramicXrays.zip, CC BY-NC 3.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of panoramic_dental; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(self, homepage='https://data.mendeley.com/datasets/hxt48yk462', mask=CLASSES)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. Each image counts as one patient."""
  pictures, segmentations = (
    {match[1]: path for path in files if (match := re.fullmatch(rf'{folder}/(\d+)\.png', path))}
    for folder in ('Images', 'Segmentation1'))
  rejects = [dataset.Reject(name, pictures[name], 'image without segmentation')
             for name in pictures.keys() - segmentations]
  rejects += [dataset.Reject(name, segmentations[name], 'segmentation without image')
              for name in segmentations.keys() - pictures]
  entries = [
    dataset.Entry(image_id=name, patient=name, path=root / pictures[name], fields={'part': 'jaw'},
                 mask=functools.partial(read_mandible, root / segmentations[name], incomplete=name in INCOMPLETE))
    for name in sorted(pictures.keys() & segmentations, key=int)]
  return entries, rejects, {}


def read_mandible(path: pathlib.Path, incomplete: bool = False) -> np.ndarray:
  """HW uint8, 1 on the mandible; elsewhere 0, or 255 if the segmentation is incomplete.

  A segmentation file is the image with everything but the mandible blanked to one grey value.
  """
  segmentation = images.read(path)
  background = np.uint8(label_columns.UNANNOTATED if incomplete else 0)
  return np.where(segmentation != segmentation[0, 0], np.uint8(1), background)
