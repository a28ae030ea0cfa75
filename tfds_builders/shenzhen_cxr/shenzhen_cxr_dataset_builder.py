"""Shenzhen (China Set): chest X-rays with and without tuberculosis, most with a lung mask."""
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis, records

ARCHIVE = archives.Archive(
  name='shenzhen_cxr', marker='ChinaSet_AllFiles/**/CXR_png',
  files=('ChinaSet_AllFiles', 'mask'),
  layout='ChinaSet_AllFiles/CXR_png/*.png, ChinaSet_AllFiles/ClinicalReadings/*.txt and, for lung masks, '
         'mask/CHNCXR_*_mask.png beside ChinaSet_AllFiles (a folder may contain itself again).',
  download='ChinaSet_AllFiles.zip from https://openi.nlm.nih.gov/faq#collection (NLM terms: no '
           'redistribution) and the masks from https://data.mendeley.com/datasets/8gf9vpkhgy or Kaggle '
           'yoctoman/shcxr-lung-mask (CC BY-NC-SA 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of shenzhen_cxr; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(self, homepage='https://openi.nlm.nih.gov/faq#collection',
                            findings=nlm_tuberculosis.FINDINGS, mask=nlm_tuberculosis.CLASSES)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out; see `nlm_tuberculosis.make_entries`."""
  masks, _ = nlm_tuberculosis.find_files(files, rf'(?:.*/)?{nlm_tuberculosis.NAME}_mask\.png')
  return nlm_tuberculosis.make_entries(root, files, nlm_tuberculosis.merge(masks))
