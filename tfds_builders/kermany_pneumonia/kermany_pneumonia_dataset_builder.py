"""Kermany: chest radiographs of children, normal or with bacterial or viral pneumonia."""
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset

FINDINGS = ('pneumonia', 'bacteria', 'virus')  # the first is the task; the others the germ, where the name has it
NAMES = (  # Kaggle pneumonia, Kaggle normal, Mendeley
  re.compile(r'(?P<patient>person\d+)_(?P<germ>bacteria|virus)_\d+'),
  re.compile(r'(?P<patient>(NORMAL2-)?IM-\d+)-[\d-]+'),
  re.compile(r'(?P<germ>BACTERIA|VIRUS|NORMAL)-(?P<patient>\d+)-\d+'),
)

ARCHIVE = archives.Archive(
  name='kermany_pneumonia', marker='train/PNEUMONIA',
  files=('train', 'val', 'test'),
  layout='chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg (val may be absent).',
  download='Kaggle paultimothymooney/chest-xray-pneumonia or https://data.mendeley.com/datasets/rscbjbr9sj '
           '(CC BY 4.0).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of kermany_pneumonia; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(self, homepage='https://data.mendeley.com/datasets/rscbjbr9sj', findings=FINDINGS)

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the folder states the disease, the file name patient and germ."""
  entries, rejects = [], []
  for path in listed:
    parts = re.fullmatch(r'(train|val|test)/(NORMAL|PNEUMONIA)/([^/]+)\.(?:jpe?g|png)', path, re.IGNORECASE)
    if not parts:
      rejects.append(dataset.Reject('', path, 'file that is no image of this archive'))
      continue
    label, stem = parts[2].lower(), parts[3]
    ill = label == 'pneumonia'
    named = next(filter(None, (pattern.fullmatch(stem) for pattern in NAMES)), None)
    named = named.groupdict() if named else {'patient': stem}
    germ = (named.get('germ') or '').lower() if ill else ''
    entries.append(dataset.Entry(
      image_id=path.rsplit('.', 1)[0], patient=named['patient'], path=root / path,
      stratum=germ or label, group=label,
      official={'val': 'validation'}.get(parts[1].lower(), parts[1].lower()),
      fields={'part': 'chest',
              'present': [float(ill), float(germ == 'bacteria'), float(germ == 'virus')],
              # Who has no pneumonia has neither kind of it; who has one has it of one germ, if the name says which.
              'label_mask': [True, not ill or bool(germ), not ill or bool(germ)]}))
  return entries, rejects, {}
