"""Knee osteoarthritis: radiographs of single knees, graded after Kellgren and Lawrence."""
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset

GRADES = ('KL 0 none', 'KL 1 doubtful', 'KL 2 minimal', 'KL 3 moderate', 'KL 4 severe')
PATH = re.compile(r'(?P<folder>train|val|test|auto_test)/(?P<grade>[0-4])/(?P<stem>[^/]+)\.png')
STEM = re.compile(r'(?P<patient>\d+)(?P<side>[LR])')

ARCHIVE = archives.Archive(
  name='knee_oa', marker='train/4',
  files=('train', 'val', 'test', 'auto_test'),
  layout='{train,val,test,auto_test}/{0,1,2,3,4}/9003175R.png ..., in Mendeley\'s archive inside '
         'KneeXrayData/ClsKLData/kneeKL224 (val and auto_test may be absent).',
  download='https://data.mendeley.com/datasets/56rmx5bjcr or Kaggle '
           'shashwatwork/knee-osteoarthritis-dataset-with-severity (CC BY 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of knee_oa; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(
      self, homepage='https://data.mendeley.com/datasets/56rmx5bjcr', findings=GRADES, relation='ordinal')

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the folder states the grade, the file name patient and side."""
  entries, rejects, again = [], [], 0
  for path in listed:
    match = PATH.fullmatch(path)
    knee = STEM.fullmatch(match['stem']) if match else None
    if match and match['folder'] == 'auto_test':
      again += 1
    elif not knee:
      rejects.append(dataset.Reject('', path, 'file that is no image of this archive'))
    else:
      grade = int(match['grade'])
      entries.append(dataset.Entry(
        image_id=match['stem'], patient=knee['patient'], path=root / path, stratum=match['grade'],
        group=match['grade'], official={'val': 'validation'}.get(match['folder'], match['folder']),
        fields={'part': 'knee', 'label_mask': [True] * len(GRADES),
                'present': [float(other == grade) for other in range(len(GRADES))]}))
  return entries, rejects, {'test knee cut out a second time (auto_test)': again} if again else {}
