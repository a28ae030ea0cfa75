"""NIH ChestX-ray14: chest radiographs with 14 findings read from reports, and some boxes."""
import collections
import math
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset

FINDINGS = ('Atelectasis', 'Cardiomegaly', 'Effusion', 'Infiltration', 'Mass', 'Nodule', 'Pneumonia', 'Pneumothorax',
            'Consolidation', 'Edema', 'Emphysema', 'Fibrosis', 'Pleural_Thickening', 'Hernia')
KINDS = FINDINGS[:8]  # of boxes
# Rarest first, as counted in the whole archive: a patient is balanced by the rarest finding of all the images.
RAREST = ('Hernia', 'Pneumonia', 'Fibrosis', 'Edema', 'Emphysema', 'Cardiomegaly', 'Pleural_Thickening',
          'Consolidation', 'Pneumothorax', 'Mass', 'Nodule', 'Atelectasis', 'Effusion', 'Infiltration')
FRAME = 1024  # pixels of the square that the box list counts in, whatever the size of the files
OFFICIAL = {'train_val_list.txt': 'train', 'test_list.txt': 'test'}
SEXES, VIEWS = ('F', 'M'), ('PA', 'AP')
OLDEST = 120  # years; the table of 2017 has ages up to 414

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
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(
      self, homepage='https://nihcc.app.box.com/v/ChestXray-NIHCC', findings=FINDINGS, box_classes=KINDS,
      boxes='on some 880 images only: no object on another image means that nobody drew, not that nothing is there')

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out, from the two tables and the names of the images."""
  rejects, images = [], {}
  for path in listed:
    if path.endswith('.png'):
      name = path.rsplit('/', 1)[-1]
      if images.setdefault(name, path) != path:
        rejects.append(dataset.Reject(name[:-4], path, 'duplicate image_id'))
  tables = [path for path in listed if re.fullmatch(r'Data_Entry_2017[^/]*\.csv', path)]
  if not tables:
    raise ValueError(f'{root} has a Data_Entry_2017*.csv that is no file')
  rows, ragged = archives.read_table(root / tables[0], (
    'Image Index', 'Finding Labels', 'Patient ID', 'Patient Age', 'Patient Gender', 'View Position'))
  drawn, bad_boxes = read_boxes(root, listed, {row['Image Index'] for row in rows})
  rejects += bad_boxes + [dataset.Reject('', tables[0], reason) for reason in ragged]

  stated, good = collections.defaultdict(set), []
  for row in rows:
    name, labels = row['Image Index'], set(row['Finding Labels'].split('|')) - {'No Finding'}
    if name not in images:
      rejects.append(dataset.Reject(name[:-4], tables[0], 'row without image'))
    elif not row['Finding Labels'] or not labels <= set(FINDINGS):
      rejects.append(dataset.Reject(name[:-4], images[name], f'unknown finding: {sorted(labels - set(FINDINGS))}'))
    else:
      stated[row['Patient ID']] |= labels
      good.append((name, labels, row))
  tabled = {row['Image Index'] for row in rows}
  rejects += [dataset.Reject(name[:-4], images[name], 'image without row') for name in images if name not in tabled]
  strata = {patient: next((name for name in RAREST if name in labels), 'No Finding')
            for patient, labels in stated.items()}
  official = {name: OFFICIAL[path] for path in OFFICIAL if path in listed
              for name in archives.read_text(root / path).split()}
  entries = [
    dataset.Entry(
      image_id=name[:-4], patient=row['Patient ID'], path=root / images[name], stratum=strata[row['Patient ID']],
      objects=tuple(drawn[name]), official=official.get(name, ''),
      fields={'part': 'chest', 'view': keep(row['View Position'], VIEWS), 'sex': keep(row['Patient Gender'], SEXES),
              'age': read_age(row['Patient Age']), 'label_mask': [True] * len(FINDINGS),
              'present': [float(finding in labels) for finding in FINDINGS]})
    for name, labels, row in good]
  return entries, rejects, {}


def read_boxes(root, listed, tabled):
  """Boxes by file name.

  The header names the last four of six columns in one unquoted cell with commas, so columns go by position.

  Returns:
    {file name: [(kind, y0, x0, y1, x1)]} relative to the image, rejects
  """
  found, rejects = collections.defaultdict(list), []
  for table in [path for path in listed if path.startswith('BBox_List_2017')]:
    for name, kind, *numbers in map(fill, archives.read_rows(root / table)[1:]):
      kind = {'Infiltrate': 'Infiltration'}.get(kind, kind)
      x, y, width, height = map(read_number, numbers[:4])
      box, reason = boxes.place_box(kind, x, y, x + width, y + height, FRAME, FRAME)
      if kind not in KINDS:
        reason = f'unknown kind of box: {kind}'
      elif box and name not in tabled:
        reason = 'box without image'
      if reason:
        rejects.append(dataset.Reject(name[:-4], table, reason))
      else:
        found[name].append(box)
  return found, rejects


def read_age(text):
  """Years from '58', '058Y' or '006M'; NaN where unreadable or beyond belief."""
  match = re.fullmatch(r'(\d{1,5})([YMD]?)', text.strip())
  years = int(match[1]) / {'': 1, 'Y': 1, 'M': 12, 'D': 365.25}[match[2]] if match else dataset.UNKNOWN_AGE
  return years if years <= OLDEST else dataset.UNKNOWN_AGE


def keep(cell, words):
  """A cell that is one of the words, else ''."""
  return cell if cell in words else ''


def fill(row):
  """A row of the box list with six cells at least."""
  return [*row, *[''] * (6 - len(row))]


def read_number(cell):
  try:
    return float(cell)
  except ValueError:
    return math.nan
