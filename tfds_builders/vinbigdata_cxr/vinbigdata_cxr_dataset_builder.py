"""VinBigData chest X-rays: DICOM files; three radiologists boxed fourteen findings on each image. From Kaggle, or from
PhysioNet as VinDr-CXR, with the labels of its test set."""
import collections
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, decoded, dicom, records, tables

FINDINGS = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
            'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
            'Pneumothorax', 'Pulmonary fibrosis')
# Rarest first in the archive's table. An image's stratum is the rarest finding that any reader reports.
RAREST = ('Pneumothorax', 'Atelectasis', 'Consolidation', 'Calcification', 'ILD', 'Infiltration', 'Other lesion',
          'Pleural effusion', 'Lung Opacity', 'Nodule/Mass', 'Pulmonary fibrosis', 'Pleural thickening', 'Cardiomegaly',
          'Aortic enlargement')
NOTHING = 'No finding'
MERGE_IOU = 0.4  # boxes of one class by different readers are merged from this IoU on; see README.md
IMAGE = re.compile(r'(?P<folder>train|test)/(?P<name>[^/]+)\.(?:dicom|dcm)', re.IGNORECASE)
SIDES = ('x_min', 'y_min', 'x_max', 'y_max')
COLUMNS = ('image_id', 'class_name', *SIDES)
READER = 'rad_id'  # the column of the reader; the tables of PhysioNet's test set, a consensus, lack it
CONSENSUS = 'consensus'
# Classes of boxes that PhysioNet's tables have and Kaggle's lack.
FURTHER = ('Clavicle fracture', 'Edema', 'Emphysema', 'Enlarged PA', 'Lung cavity', 'Lung cyst', 'Mediastinal shift',
           'Rib fracture')
KAGGLE = {'train': ('train.csv', '')}  # {folder of images: (table of boxes, table of labels)}
PHYSIONET = {folder: (f'annotations/annotations_{folder}.csv', f'annotations/image_labels_{folder}.csv')
             for folder in ('train', 'test')}

ARCHIVE = archives.Archive(
  name='vinbigdata_cxr', marker='train/*.dicom',
  files=('train', 'test', 'train.csv', 'annotations'),
  layout='train/<image_id>.dicom, train.csv (test/*.dicom has no labels and may be absent); or, from PhysioNet, '
         'train/<image_id>.dicom, test/<image_id>.dicom, annotations/{annotations,image_labels}_{train,test}.csv.',
  download='Kaggle competition vinbigdata-chest-xray-abnormalities-detection (its rules: non-commercial research), or '
           'https://physionet.org/content/vindr-cxr (credentialed access), which also has the labels of the test set.')


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
  """Entries, rejects and counts of what is left out: in Kaggle's archive the test images, which have no labels."""
  tables = find_tables(root, files)
  pictures: dict[str, str] = {}
  rejects, left_out = [], collections.Counter[str]()
  for path in files:
    match = IMAGE.fullmatch(path)
    if path.startswith('test/') and 'test' not in tables:
      left_out['test image without label'] += 1
    elif match and match['name'] not in pictures:
      pictures[match['name']] = path
    elif not path.startswith('annotations/') and path != 'train.csv':
      rejects.append(dataset.Reject(match['name'] if match else '', path, 'duplicate image_id' if match else
                                   'not an image of this archive'))
  entries = []
  for folder, (annotations, labels) in tables.items():
    own = {name: path for name, path in pictures.items() if path.lower().startswith(f'{folder}/')}
    reports, rows, bad = read_tables(root, annotations, labels)
    rejects += bad
    rejects += [dataset.Reject(name, annotations, 'row without image') for name in reports.keys() - own.keys()]
    rejects += [dataset.Reject(name, own[name], 'image without row') for name in own.keys() - reports.keys()]
    for name in sorted(reports.keys() & own.keys()):
      kept = [row for row in rows[name] if not labels or row['class_name'] not in FURTHER]
      if len(kept) < len(rows[name]):
        left_out['box of a class that Kaggle does not have'] += len(rows[name]) - len(kept)
      try:
        entry, bad = make_entry(name, root / own[name], reports[name], kept, annotations)
        entries.append(dataclasses.replace(entry, official_split=folder if tables is PHYSIONET else ''))
        rejects += bad
      except decoded.Unreadable as error:
        rejects.append(dataset.Reject(name, own[name], str(error)))
  return entries, rejects, dict(left_out)


def find_tables(root: pathlib.Path, files: Mapping[str, int]) -> Mapping[str, tuple[str, str]]:
  """{folder of images: (table of boxes, table of labels)}; Kaggle's one table has both. Raises ValueError."""
  for layout in (PHYSIONET, KAGGLE):
    if all(path in files for pair in layout.values() for path in pair if path):
      return layout
  raise ValueError(f'{root} has neither train.csv (Kaggle) nor all of '
                   f'{", ".join(path for pair in PHYSIONET.values() for path in pair)} (PhysioNet)')


def read_tables(
    root: pathlib.Path, annotations: str,
    labels: str) -> tuple[dict[str, dict[str, set[str]]], dict[str, list[dict[str, str]]], list[dataset.Reject]]:
  """The tables of one folder.

  Returns:
    {image_id: {reader: findings that this reader reports}}, {image_id: rows of the table of boxes}, and rejects.
  """
  reports: dict[str, dict[str, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
  rows: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
  needed = (*COLUMNS, READER) if annotations in KAGGLE['train'] else COLUMNS
  table, ragged = tables.read_table(root / annotations, needed)
  rejects = [dataset.Reject('', annotations, reason) for reason in ragged]
  for row in table:
    rows[row['image_id']].append({READER: CONSENSUS, **row})
    if not labels:
      reports[row['image_id']][row[READER]].add(row['class_name'])
  if labels:
    table, ragged = tables.read_table(root / labels, ('image_id', *FINDINGS))
    rejects += [dataset.Reject('', labels, reason) for reason in ragged]
    for row in table:
      flags = {finding: tables.read_flag(row[finding]) for finding in FINDINGS}
      odd = [f'{finding} is {row[finding]!r}' for finding, flag in flags.items() if flag is None]
      if odd:
        rejects.append(dataset.Reject(row['image_id'], labels, f'label that is neither 0 nor 1: {odd[0]}'))
      else:
        reports[row['image_id']][row.get(READER, CONSENSUS)] |= {finding for finding in FINDINGS if flags[finding]}
    # A row of the table of boxes for an image without labels is listed as a row without image or label.
    rejects += [dataset.Reject(name, annotations, 'boxes without labels') for name in rows.keys() - reports.keys()]
  return reports, rows, rejects


def make_entry(
    name: str, path: pathlib.Path, reports: Mapping[str, set[str]], rows: Sequence[dict[str, str]],
    table: str) -> tuple[dataset.Entry, list[dataset.Reject]]:
  """One image with its readers' reports and its rows of the table of boxes. Raises Unreadable if there are boxes
  but no image size."""
  readers_of = {finding: {reader for reader, found in reports.items() if finding in found} for finding in FINDINGS}
  drawn, rejects = read_boxes(name, path, [row for row in rows if row['class_name'] != NOTHING], table)
  present = [2 * len(readers_of[finding]) > len(reports) for finding in FINDINGS]
  known = [yes or not readers_of[finding] for yes, finding in zip(present, FINDINGS, strict=True)]
  return dataset.Entry(
    image_id=name, patient=name, path=path, objects=tuple(merge_readers(drawn)),
    stratum=next((finding for finding in RAREST if readers_of[finding]), NOTHING),
    fields={'part': 'chest', 'present': [float(yes) for yes in present], 'label_mask': known}), rejects


def read_boxes(
    name: str, path: pathlib.Path, rows: Sequence[dict[str, str]],
    table: str) -> tuple[list[tuple[str, boxes.Box]], list[dataset.Reject]]:
  """[(reader, box), ...] and rejects from the rows of one image. Boxes are in pixels of the DICOM file."""
  drawn: list[tuple[str, boxes.Box]] = []
  rejects = []
  height, width = dicom.read_size(path) if rows else (1, 1)
  for row in rows:
    x0, y0, x1, y1 = (read_number(row[column]) for column in SIDES)
    box: boxes.Box | None = None
    reason: str | None = f'unknown box class: {row["class_name"]}'
    if row['class_name'] in FINDINGS:
      box, reason = boxes.place_box(row['class_name'], x0, y0, x1, y1, width, height)
    drawn += [(row[READER], box)] if box else []
    rejects += [dataset.Reject(name, table, reason)] if reason else []
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
