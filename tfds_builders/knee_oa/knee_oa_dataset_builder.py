"""Knee osteoarthritis: X-rays of single knees with Kellgren-Lawrence grades."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records

GRADES = ('KL 0 none', 'KL 1 doubtful', 'KL 2 minimal', 'KL 3 moderate', 'KL 4 severe')
PATH = re.compile(r'(?P<folder>train|val|test|auto_test)/(?P<grade>[0-4])/(?P<stem>[^/]+)\.png')
STEM = re.compile(r'(?P<patient>\d+)(?P<side>[LR])')

ARCHIVE = archives.Archive(
  name='knee_oa', marker='train/4',
  files=('train', 'val', 'test', 'auto_test'),
  layout='{train,val,test,auto_test}/{0,1,2,3,4}/9003175R.png ..., inside KneeXrayData/ClsKLData/kneeKL224 '
         'in the Mendeley archive (val and auto_test may be absent).',
  download='https://data.mendeley.com/datasets/56rmx5bjcr or Kaggle '
           'shashwatwork/knee-osteoarthritis-dataset-with-severity (CC BY 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of knee_oa; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://data.mendeley.com/datasets/56rmx5bjcr', findings=GRADES, relation='ordinal')

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. The folder gives the grade, the file name patient and side."""
  entries, rejects, auto_test = [], [], 0
  for path in files:
    match = PATH.fullmatch(path)
    knee = STEM.fullmatch(match['stem']) if match else None
    if match and match['folder'] == 'auto_test':
      auto_test += 1
    elif not match or not knee:
      rejects.append(dataset.Reject('', path, 'not an image of this archive'))
    else:
      grade = int(match['grade'])
      entries.append(dataset.Entry(
        image_id=match['stem'], patient=knee['patient'], path=root / path, stratum=match['grade'],
        paper_group=match['grade'], official_split={'val': 'validation'}.get(match['folder'], match['folder']),
        fields={'part': 'knee', 'label_mask': [True] * len(GRADES),
                'present': [float(other == grade) for other in range(len(GRADES))]}))
  return entries, rejects, {'test knee cropped a second time (auto_test)': auto_test} if auto_test else {}
