"""Montgomery County: chest X-rays with and without tuberculosis, with a mask for each lung."""
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, nlm_tuberculosis, records

ARCHIVE = archives.Archive(
  name='montgomery_cxr', marker='ManualMask/leftMask',
  files=('CXR_png', 'ClinicalReadings', 'ManualMask'),
  layout='MontgomerySet/CXR_png/*.png, MontgomerySet/ClinicalReadings/*.txt, '
         'MontgomerySet/ManualMask/{leftMask,rightMask}/*.png.',
  download='NLM-MontgomeryCXRSet.zip from https://openi.nlm.nih.gov/faq#collection (NLM terms: no '
           'redistribution).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of montgomery_cxr; see README.md beside it."""

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
  """Entries, rejects and counts of what is left out. A single lung's mask is rejected: the other lung is unknown."""
  left, right = (nlm_tuberculosis.find_files(files, rf'(?:.*/)?{side}Mask/{nlm_tuberculosis.NAME}\.png')[0]
                 for side in ('left', 'right'))
  single = [dataset.Reject(name, path, 'mask of one lung without the other')
            for one, other in ((left, right), (right, left)) for name, path in one.items() if name not in other]
  both = left.keys() & right
  masks = nlm_tuberculosis.merge(*({name: side[name] for name in both} for side in (left, right)))
  entries, rejects, left_out = nlm_tuberculosis.make_entries(root, files, masks)
  return entries, [*rejects, *single], left_out
