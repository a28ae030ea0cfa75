"""Chest Xray Masks and Labels: the Montgomery and Shenzhen chest X-rays with lung masks, in one folder."""
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis, records

ARCHIVE = archives.Archive(
  name='lung_masks', marker='Lung Segmentation/CXR_png',
  files=('Lung Segmentation',),
  layout='Lung Segmentation/CXR_png/*.png, Lung Segmentation/masks/*.png, Lung Segmentation/ClinicalReadings/*.txt '
         '(the readings may be absent).',
  download='Kaggle nikhilpandey360/chest-xray-masks-and-labels (CC0 on Kaggle; the NLM asks not to redistribute).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of lung_masks; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels',
      findings=nlm_tuberculosis.FINDINGS, mask=nlm_tuberculosis.CLASSES)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out: the folder test, which holds copies of images without a mask."""
  masks, _ = nlm_tuberculosis.find_files(files, rf'Lung Segmentation/masks/{nlm_tuberculosis.NAME}(?:_mask)?\.png')
  entries, rejects, left_out = nlm_tuberculosis.make_entries(root, files, nlm_tuberculosis.merge(masks))
  entries = [dataclasses.replace(entry, paper_group='' if entry.image_id in masks else None) for entry in entries]
  copies = sum(path.startswith('Lung Segmentation/test/') for path in files)
  return entries, rejects, {**left_out, **({'copy of an image in test': copies} if copies else {})}
