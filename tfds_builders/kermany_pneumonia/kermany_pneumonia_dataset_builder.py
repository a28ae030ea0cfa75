"""Kermany pneumonia: chest X-rays of children, normal or with bacterial or viral pneumonia."""
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, records

FINDINGS = ('pneumonia', 'bacteria', 'virus')  # the first is the paper's task; the germ is known from some names
OFFICIAL = {'train': 'train', 'val': 'train', 'test': 'test'}  # val has 16 images: too few to validate on
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
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(self, homepage='https://data.mendeley.com/datasets/rscbjbr9sj', findings=FINDINGS)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. The folder gives the label, the file name patient and germ."""
  entries, rejects = [], []
  for path in files:
    parts = re.fullmatch(r'(train|val|test)/(NORMAL|PNEUMONIA)/([^/]+)\.(?:jpe?g|png)', path, re.IGNORECASE)
    if not parts:
      rejects.append(dataset.Reject('', path, 'not an image of this archive'))
      continue
    label, stem = parts[2].lower(), parts[3]
    ill = label == 'pneumonia'
    match = next(filter(None, (pattern.fullmatch(stem) for pattern in NAMES)), None)
    name = match.groupdict() if match else {'patient': stem}
    germ = (name.get('germ') or '').lower() if ill else ''
    entries.append(dataset.Entry(
      image_id=path.rsplit('.', 1)[0], patient=name['patient'], path=root / path,
      stratum=germ or label, paper_group=label,
      official_split=OFFICIAL[parts[1].lower()],
      fields={'part': 'chest',
              'present': [float(ill), float(germ == 'bacteria'), float(germ == 'virus')],
              # A normal image has neither germ. With pneumonia, the germ is known only if the file name states it.
              'label_mask': [True, not ill or bool(germ), not ill or bool(germ)]}))
  return entries, rejects, {}
