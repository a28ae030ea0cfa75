"""VinBigData chest X-rays: fourteen findings boxed by three radiologists for each image, as DICOM."""
import collections
import math
import re

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, dicom, images

FINDINGS = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
            'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
            'Pneumothorax', 'Pulmonary fibrosis')
# Rarest first, as counted in the archive's rows: an image is balanced by the rarest finding that a reader sees.
RAREST = ('Pneumothorax', 'Atelectasis', 'Consolidation', 'Calcification', 'ILD', 'Infiltration', 'Other lesion',
          'Pleural effusion', 'Lung Opacity', 'Nodule/Mass', 'Pulmonary fibrosis', 'Pleural thickening', 'Cardiomegaly',
          'Aortic enlargement')
NOTHING = 'No finding'
SAME = 0.4  # IoU from which two readers' boxes of one kind are one; see README.md
PICTURE = re.compile(r'train/([^/]+)\.(?:dicom|dcm)', re.IGNORECASE)
COLUMNS = ('image_id', 'class_name', 'rad_id', 'x_min', 'y_min', 'x_max', 'y_max')

ARCHIVE = archives.Archive(
  name='vinbigdata_cxr', marker='train/*.dicom',
  files=('train', 'test', 'train.csv'),
  layout='train/<image_id>.dicom, train.csv (test/*.dicom has no labels and may be absent).',
  download='Kaggle competition vinbigdata-chest-xray-abnormalities-detection (its rules: non-commercial research).')


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of vinbigdata_cxr; see README.md beside it."""

  VERSION = dataset.VERSION
  BUILDER_CONFIGS = dataset.CONFIGS
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.explain()

  def _info(self):
    return dataset.describe(
      self, homepage='https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection',
      findings=FINDINGS, kinds=FINDINGS, boxes=f'of any reader; those of several with IoU {SAME} and more are averaged')

  def _split_generators(self, dl_manager):
    return dataset.generate(self, ARCHIVE, dl_manager.manual_dir, read)

  def _generate_examples(self, split, root, entries):
    yield from dataset.records(self, split, root, entries)


def read(root, listed):
  """Entries, rejects and what was left out: the test images, which have no labels."""
  pictures, rejects, hidden = {}, [], 0
  for path in listed:
    match = PICTURE.fullmatch(path)
    if match and match[1] not in pictures:
      pictures[match[1]] = path
    elif path.startswith('test/'):
      hidden += 1
    elif path != 'train.csv':
      rejects.append(dataset.Reject(match[1] if match else '', path, 'duplicate image_id' if match else
                                   'file that is no image of this archive'))
  rows = collections.defaultdict(list)
  table, ragged = archives.read_table(root / 'train.csv', COLUMNS)
  rejects += [dataset.Reject('', 'train.csv', reason) for reason in ragged]
  for row in table:
    rows[row['image_id']].append(row)
  rejects += [dataset.Reject(name, 'train.csv', 'row without image') for name in rows.keys() - pictures.keys()]
  rejects += [dataset.Reject(name, pictures[name], 'image without row') for name in pictures.keys() - rows.keys()]
  entries = []
  for name in sorted(rows.keys() & pictures.keys()):
    try:
      entry, bad = make_entry(name, root / pictures[name], rows[name])
      entries.append(entry)
      rejects += bad
    except images.Unreadable as error:
      rejects.append(dataset.Reject(name, pictures[name], str(error)))
  return entries, rejects, {'test image without label': hidden} if hidden else {}


def make_entry(name, path, rows):
  """One image of what its readers say: (entry, rejects). Raises images.Unreadable where boxes have no frame."""
  readers, said = {row['rad_id'] for row in rows}, collections.defaultdict(set)
  for row in rows:
    said[row['class_name']].add(row['rad_id'])
  drawn, rejects = read_boxes(name, path, [row for row in rows if row['class_name'] != NOTHING])
  present = [2 * len(said[finding]) > len(readers) for finding in FINDINGS]
  known = [yes or not said[finding] for yes, finding in zip(present, FINDINGS, strict=True)]
  return dataset.Entry(
    image_id=name, patient=name, path=path, objects=tuple(merge(drawn)),
    stratum=next((finding for finding in RAREST if said[finding]), NOTHING),
    fields={'part': 'chest', 'present': [float(yes) for yes in present], 'label_mask': known}), rejects


def read_boxes(name, path, rows):
  """[(reader, box)], rejects of the rows of one image that name a finding; their boxes are in pixels of the DICOM."""
  drawn, rejects = [], []
  height, width = dicom.read_size(path) if rows else (1, 1)
  for row in rows:
    sides = [read_number(row[side]) for side in COLUMNS[3:]]
    if row['class_name'] not in FINDINGS:
      box, reason = None, f'unknown kind of box: {row["class_name"]}'
    else:
      box, reason = boxes.place_box(row['class_name'], *sides, width, height)
    drawn += [(row['rad_id'], box)] if box else []
    rejects += [dataset.Reject(name, 'train.csv', reason)] if reason else []
  return drawn, rejects


def read_number(text):
  try:
    return float(text)
  except ValueError:
    return math.nan


def merge(drawn):
  """The objects of an image: boxes of one kind by different readers that are one become their mean.

  Each box, in the order of readers, joins the group it overlaps most, if that has none of its reader and the overlap
  with the group's mean is at least SAME.

  Args:
    drawn: [(reader, (kind, y0, x0, y1, x1)), ...].

  Returns:
    [(kind, y0, x0, y1, x1), ...], sorted.
  """
  groups = []
  for reader, (kind, *box) in sorted(set(drawn)):
    near = [group for group in groups if group['kind'] == kind and reader not in group['readers']]
    best = max(near, key=lambda group: boxes.find_overlap(mean(group['boxes']), box), default=None)
    if best is None or boxes.find_overlap(mean(best['boxes']), box) < SAME:
      best = {'kind': kind, 'readers': set(), 'boxes': []}
      groups.append(best)
    best['readers'].add(reader)
    best['boxes'].append(box)
  return sorted((group['kind'], *mean(group['boxes'])) for group in groups)


def mean(boxes_M4):
  return [sum(sides) / len(boxes_M4) for sides in zip(*boxes_M4, strict=True)]
