"""Chest Xray Masks and Labels: the Montgomery and Shenzhen images with the lungs drawn, in one folder."""
import dataclasses

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis

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
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(
      self, homepage='https://www.kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels',
      findings=nlm_tuberculosis.FINDINGS, mask=nlm_tuberculosis.CLASSES)

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the folder test, which holds copies of the images without a mask."""
  masks, _ = nlm_tuberculosis.pick(listed, rf'Lung Segmentation/masks/{nlm_tuberculosis.NAME}(?:_mask)?\.png')
  entries, rejects, left_out = nlm_tuberculosis.make_entries(root, listed, nlm_tuberculosis.join(masks))
  entries = [dataclasses.replace(entry, group='' if entry.image_id in masks else None) for entry in entries]
  copies = sum(path.startswith('Lung Segmentation/test/') for path in listed)
  return entries, rejects, {**left_out, **({'copy of an image in test': copies} if copies else {})}
