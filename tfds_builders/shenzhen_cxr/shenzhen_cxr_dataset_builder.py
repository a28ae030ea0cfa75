"""Shenzhen (China Set): chest radiographs with and without tuberculosis, the lungs drawn on most."""
import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis

ARCHIVE = archives.Archive(
  name='shenzhen_cxr', marker='ChinaSet_AllFiles/**/CXR_png',
  files=('ChinaSet_AllFiles', 'mask'),
  layout='ChinaSet_AllFiles/CXR_png/*.png, ChinaSet_AllFiles/ClinicalReadings/*.txt and, for the lungs, '
         'mask/CHNCXR_*_mask.png beside ChinaSet_AllFiles (folders may be doubled).',
  download='ChinaSet_AllFiles.zip from https://openi.nlm.nih.gov/faq#collection (terms of the NLM: no '
           'redistribution) and the masks from https://data.mendeley.com/datasets/8gf9vpkhgy or Kaggle '
           'yoctoman/shcxr-lung-mask (CC BY-NC-SA 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of shenzhen_cxr; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://openi.nlm.nih.gov/faq#collection',
                            findings=nlm_tuberculosis.FINDINGS, mask=nlm_tuberculosis.CLASSES)

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out; see `nlm`."""
  masks, _ = nlm_tuberculosis.pick(listed, rf'(?:.*/)?{nlm_tuberculosis.NAME}_mask\.png')
  return nlm_tuberculosis.make_entries(root, listed, nlm_tuberculosis.join(masks))
