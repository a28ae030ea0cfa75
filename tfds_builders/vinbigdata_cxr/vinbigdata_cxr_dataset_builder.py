"""VinBigData chest X-rays: DICOM files; three radiologists boxed fourteen findings on each image."""
import collections
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, dicom, images, records

FINDINGS = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
            'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
            'Pneumothorax', 'Pulmonary fibrosis')
# Rarest first in the archive's table. An image's stratum is the rarest finding that any reader reports.
RAREST = ('Pneumothorax', 'Atelectasis', 'Consolidation', 'Calcification', 'ILD', 'Infiltration', 'Other lesion',
          'Pleural effusion', 'Lung Opacity', 'Nodule/Mass', 'Pulmonary fibrosis', 'Pleural thickening', 'Cardiomegaly',
          'Aortic enlargement')
NOTHING = 'No finding'
MERGE_IOU = 0.4  # boxes of one class by different readers are merged from this IoU on; see README.md
IMAGE = re.compile(r'train/([^/]+)\.(?:dicom|dcm)', re.IGNORECASE)
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
  MANUAL_DOWNLOAD_INSTRUCTIONS = ARCHIVE.instructions()

  def _info(self) -> tfds.core.DatasetInfo:
    return dataset.dataset_info(
      self, homepage='https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection',
      findings=FINDINGS, box_classes=FINDINGS, box_negatives=FINDINGS,
      boxes=f'of any reader; boxes of different readers with an IoU of at least {MERGE_IOU} are averaged')

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    return records.split_generators(self, ARCHIVE, dl_manager.manual_dir, read_archive)

  def _generate_examples(
      self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
    yield from records.generate_records(self, split, root, entries)


def read_archive(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out: the test images, which have no labels."""
  pictures: dict[str, str] = {}
  rejects, test_images = [], 0
  for path in files:
    match = IMAGE.fullmatch(path)
    if match and match[1] not in pictures:
      pictures[match[1]] = path
    elif path.startswith('test/'):
      test_images += 1
    elif path != 'train.csv':
      rejects.append(dataset.Reject(match[1] if match else '', path, 'duplicate image_id' if match else
                                   'not an image of this archive'))
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
  return entries, rejects, {'test image without label': test_images} if test_images else {}


def make_entry(
    name: str, path: pathlib.Path, rows: Sequence[dict[str, str]]) -> tuple[dataset.Entry, list[dataset.Reject]]:
  """One image with its rows of the table. Raises images.Unreadable if there are boxes but no image size."""
  readers, readers_of = {row['rad_id'] for row in rows}, collections.defaultdict(set)
  for row in rows:
    readers_of[row['class_name']].add(row['rad_id'])
  drawn, rejects = read_boxes(name, path, [row for row in rows if row['class_name'] != NOTHING])
  present = [2 * len(readers_of[finding]) > len(readers) for finding in FINDINGS]
  known = [yes or not readers_of[finding] for yes, finding in zip(present, FINDINGS, strict=True)]
  return dataset.Entry(
    image_id=name, patient=name, path=path, objects=tuple(merge_readers(drawn)),
    stratum=next((finding for finding in RAREST if readers_of[finding]), NOTHING),
    fields={'part': 'chest', 'present': [float(yes) for yes in present], 'label_mask': known}), rejects


def read_boxes(
    name: str, path: pathlib.Path,
    rows: Sequence[dict[str, str]]) -> tuple[list[tuple[str, boxes.Box]], list[dataset.Reject]]:
  """[(reader, box), ...] and rejects from the rows of one image. Boxes are in pixels of the DICOM file."""
  drawn: list[tuple[str, boxes.Box]] = []
  rejects = []
  height, width = dicom.read_size(path) if rows else (1, 1)
  for row in rows:
    x0, y0, x1, y1 = (read_number(row[column]) for column in COLUMNS[3:])
    box: boxes.Box | None = None
    reason: str | None = f'unknown box class: {row["class_name"]}'
    if row['class_name'] in FINDINGS:
      box, reason = boxes.place_box(row['class_name'], x0, y0, x1, y1, width, height)
    drawn += [(row['rad_id'], box)] if box else []
    rejects += [dataset.Reject(name, 'train.csv', reason)] if reason else []
  return drawn, rejects


def read_number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def merge_readers(drawn: Sequence[tuple[str, boxes.Box]]) -> list[boxes.Box]:
  """Averages the boxes of one class that different readers drew around the same thing.

  Boxes are visited in the order of readers. A box joins the group whose mean it overlaps most, if their IoU is at
  least MERGE_IOU and the group has no box of the same reader. Otherwise it starts a group.

  Args:
    drawn: [(reader, (class_name, y0, x0, y1, x1)), ...].

  Returns:
    [(class_name, y0, x0, y1, x1), ...], sorted.
  """
  groups: list[dict[str, Any]] = []
  for reader, (class_name, *box) in sorted(set(drawn)):
    near = [group for group in groups if group['class_name'] == class_name and reader not in group['readers']]
    best = max(near, key=lambda group: boxes.compute_iou(mean(group['boxes']), box), default=None)
    if best is None or boxes.compute_iou(mean(best['boxes']), box) < MERGE_IOU:
      best = {'class_name': class_name, 'readers': set(), 'boxes': []}
      groups.append(best)
    best['readers'].add(reader)
    best['boxes'].append(box)
  return sorted((group['class_name'], *mean(group['boxes'])) for group in groups)


def mean(boxes_M4: Sequence[Sequence[float]]) -> list[float]:
  return [sum(sides) / len(boxes_M4) for sides in zip(*boxes_M4, strict=True)]
