"""NIH ChestX-ray14: chest X-rays with 14 findings mined from reports, and boxes on a few images."""
import collections
import logging
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, plain_text, records, tables

FINDINGS = ('Atelectasis', 'Cardiomegaly', 'Effusion', 'Infiltration', 'Mass', 'Nodule', 'Pneumonia', 'Pneumothorax',
            'Consolidation', 'Edema', 'Emphysema', 'Fibrosis', 'Pleural_Thickening', 'Hernia')
BOX_CLASSES = FINDINGS[:8]
# Rarest first in the whole archive. A patient's stratum is the rarest finding on any of the patient's images.
RAREST = ('Hernia', 'Pneumonia', 'Fibrosis', 'Edema', 'Emphysema', 'Cardiomegaly', 'Pleural_Thickening',
          'Consolidation', 'Pneumothorax', 'Mass', 'Nodule', 'Atelectasis', 'Effusion', 'Infiltration')
FRAME = 1024  # boxes are in pixels of a 1024 x 1024 image, whatever the size of the files
OFFICIAL = {'train_val_list.txt': 'train', 'test_list.txt': 'test'}
SEXES, VIEWS = ('F', 'M'), ('PA', 'AP')

log = logging.getLogger(__name__)

ARCHIVE = archives.Archive(
  name='nih_chest_xray', marker='Data_Entry_2017*.csv',
  files=('Data_Entry_2017*.csv', 'BBox_List_2017*.csv', 'images*', *OFFICIAL),
  layout='Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), BBox_List_2017.csv, images*/**/*.png, '
         'test_list.txt and train_val_list.txt for the official split.',
  download='https://nihcc.app.box.com/v/ChestXray-NIHCC or Kaggle nih-chest-xrays/data (free use with attribution).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of nih_chest_xray; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://nihcc.app.box.com/v/ChestXray-NIHCC', findings=FINDINGS, box_classes=BOX_CLASSES,
      boxes='on about 880 images only; an image without objects was not annotated, it may still show findings')

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out, from the two tables and the image names."""
  rejects: list[dataset.Reject] = []
  images: dict[str, str] = {}
  for path in files:
    if path.endswith('.png'):
      name = path.rsplit('/', 1)[-1]
      if images.setdefault(name, path) != path:
        rejects.append(dataset.Reject(name[:-4], path, 'duplicate image_id'))
  table = choose_table(files, 'Data_Entry_2017')
  if not table:
    raise ValueError(f'{root}/Data_Entry_2017*.csv is a folder, not the table: download the table again')
  rows, ragged = tables.read_table(root / table, (
    'Image Index', 'Finding Labels', 'Patient ID', 'Patient Age', 'Patient Gender', 'View Position'))
  boxes_of, bad_boxes = read_boxes(root, files, {row['Image Index'] for row in rows})
  rejects += bad_boxes + [dataset.Reject('', table, reason) for reason in ragged]

  findings_of: dict[str, set[str]] = collections.defaultdict(set)
  good = []
  for row in rows:
    name, labels = row['Image Index'], set(row['Finding Labels'].split('|')) - {'No Finding'}
    if name not in images:
      rejects.append(dataset.Reject(name[:-4], table, 'row without image'))
    elif not row['Finding Labels'] or not labels <= set(FINDINGS):
      rejects.append(dataset.Reject(name[:-4], images[name], f'unknown finding: {sorted(labels - set(FINDINGS))}'))
    else:
      findings_of[row['Patient ID']] |= labels
      good.append((name, labels, row))
  in_table = {row['Image Index'] for row in rows}
  rejects += [dataset.Reject(name[:-4], images[name], 'image without row') for name in images if name not in in_table]
  strata = {patient: next((name for name in RAREST if name in labels), 'No Finding')
            for patient, labels in findings_of.items()}
  official = {name: OFFICIAL[path] for path in OFFICIAL if path in files
              for name in plain_text.read_text(root / path).split()}
  entries = [
    dataset.Entry(
      image_id=name[:-4], patient=row['Patient ID'], path=root / images[name], stratum=strata[row['Patient ID']],
      objects=tuple(boxes_of[name]), official_split=official.get(name, ''),
      fields={'part': 'chest', 'view': keep_known(row['View Position'], VIEWS),
              'sex': keep_known(row['Patient Gender'], SEXES), 'age': read_age(row['Patient Age']),
              'label_mask': [True] * len(FINDINGS), 'present': [float(finding in labels) for finding in FINDINGS]})
    for name, labels, row in good]
  return entries, rejects, {}


def choose_table(files: Mapping[str, int], prefix: str) -> str:
  """The table at the root whose name begins with `prefix`, '' if there is none. Of several versions, such as a second
  download, the one with the shortest name counts, and a warning names the others."""
  tables = sorted((path for path in files if re.fullmatch(rf'{prefix}[^/]*\.csv', path)),
                  key=lambda path: (len(path), path))
  if len(tables) > 1:
    log.warning('nih_chest_xray: reads %s, not the other versions beside it: %s', tables[0], ', '.join(tables[1:]))
  return tables[0] if tables else ''


def read_boxes(
    root: pathlib.Path, files: Mapping[str, int],
    in_table: set[str]) -> tuple[dict[str, list[boxes.Box]], list[dataset.Reject]]:
  """Reads the box list.

  Its header names the last four columns in one unquoted cell with commas, so columns are taken by position.

  Args:
    root: of the archive.
    files: {relative path: bytes}.
    in_table: file names of the images in the label table.

  Returns:
    {file name: [(class_name, y0, x0, y1, x1), ...]} and rejects.
  """
  found: dict[str, list[boxes.Box]] = collections.defaultdict(list)
  rejects = []
  if table := choose_table(files, 'BBox_List_2017'):
    for name, class_name, *numbers in map(pad_row, tables.read_rows(root / table)[1:]):
      class_name = {'Infiltrate': 'Infiltration'}.get(class_name, class_name)
      x, y, width, height = map(read_number, numbers[:4])
      box, reason = boxes.place_box(class_name, x, y, x + width, y + height, FRAME, FRAME)
      if class_name not in BOX_CLASSES:
        reason = f'unknown box class: {class_name}'
      elif box and name not in in_table:
        reason = 'box without image'
      if reason:
        rejects.append(dataset.Reject(name[:-4], table, reason))
      else:
        found[name] += [box] if box else []
  return found, rejects


def read_age(text: str) -> float:
  """Years from '58', '058Y' or '006M'; NaN if unreadable or above dataset.MAX_AGE."""
  match = re.fullmatch(r'(\d{1,5})([YMD]?)', tables.drop_point_zero(text.strip()))
  years = int(match[1]) / {'': 1, 'Y': 1, 'M': 12, 'D': 365.25}[match[2]] if match else dataset.UNKNOWN_AGE
  return years if years <= dataset.MAX_AGE else dataset.UNKNOWN_AGE


def keep_known(cell: str, known: Sequence[str]) -> str:
  """The cell if it is a known value, else ''."""
  return cell if cell in known else ''


def pad_row(row: list[str]) -> list[str]:
  """A row of the box list with at least six cells."""
  return [*row, *[''] * (6 - len(row))]


def read_number(cell: str) -> float:
  try:
    return float(cell)
  except ValueError:
    return math.nan
