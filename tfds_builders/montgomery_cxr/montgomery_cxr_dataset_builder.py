"""Montgomery County: chest radiographs with and without tuberculosis, each lung drawn."""
import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis

ARCHIVE = archives.Archive(
  name='montgomery_cxr', marker='ManualMask/leftMask',
  files=('CXR_png', 'ClinicalReadings', 'ManualMask'),
  layout='MontgomerySet/CXR_png/*.png, MontgomerySet/ClinicalReadings/*.txt, '
         'MontgomerySet/ManualMask/{leftMask,rightMask}/*.png.',
  download='NLM-MontgomeryCXRSet.zip from https://openi.nlm.nih.gov/faq#collection (terms of the NLM: no '
           'redistribution).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of montgomery_cxr; see README.md beside it."""

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
  """Entries, rejects and what was left out; one lung's mask says nothing of the other, so both or none are read."""
  left, right = (nlm_tuberculosis.pick(listed, rf'(?:.*/)?{side}Mask/{nlm_tuberculosis.NAME}\.png')[0]
                 for side in ('left', 'right'))
  single = [dataset.Reject(name, path, 'mask of one lung without the other')
            for one, other in ((left, right), (right, left)) for name, path in one.items() if name not in other]
  both = left.keys() & right
  masks = nlm_tuberculosis.join(*({name: side[name] for name in both} for side in (left, right)))
  entries, rejects, left_out = nlm_tuberculosis.make_entries(root, listed, masks)
  return entries, [*rejects, *single], left_out
