"""Shenzhen (China Set): chest radiographs with and without tuberculosis, the lungs drawn on most."""
import tensorflow_datasets as tfds

from tfds_builders import archives, common, nlm

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

  VERSION = common.VERSION
  BUILDER_CONFIGS = common.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return common.describe(self, homepage='https://openi.nlm.nih.gov/faq#collection', findings=nlm.FINDINGS,
                           mask=nlm.CLASSES)

  def _split_generators(self, dl_manager):
    return common.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from common.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out; see `nlm`."""
  masks, _ = nlm.pick(listed, rf'(?:.*/)?{nlm.NAME}_mask\.png')
  return nlm.make_entries(root, listed, nlm.join(masks))
