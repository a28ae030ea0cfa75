"""VinBigData's chest X-rays in miniature: DICOM files, and three readers who do not quite agree."""

import dataclasses
import hashlib
import itertools

import numpy as np

from tfds_builders.phantoms.layout import Archive, save_dicom, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest

CLASSES = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
           'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
           'Pneumothorax', 'Pulmonary fibrosis')
# Those of the fourteen that can be drawn, under the names of the drawings.
DRAWN = {'Effusion': 'Pleural effusion', 'Cardiomegaly': 'Cardiomegaly', 'Mass': 'Nodule/Mass', 'Interstitial': 'ILD',
         'Pleural_Thickening': 'Pleural thickening', 'Fibrosis': 'Pulmonary fibrosis', 'Pneumothorax': 'Pneumothorax',
         'Nodule': 'Nodule/Mass', 'Infiltration': 'Infiltration', 'Pneumonia': 'Lung Opacity',
         'Consolidation': 'Consolidation', 'Atelectasis': 'Atelectasis'}
WHITE = 4080  # stored value of full brightness: 16 times the grey


def plan(seed):
  """Two of three patients are ill; every fourth of these has a large heart as well, which one reader sees."""
  for patient in itertools.count():
    folder = 'test' if patient % 10 == 8 else 'train'
    first = tuple(DRAWN)[patient // 3 * 2 % len(DRAWN) + patient % 3 - 1] if patient % 3 else None
    second = ('Cardiomegaly',) if patient % 4 == 1 and first not in (None, 'Cardiomegaly') else ()
    name = hashlib.md5(f'{seed} {patient}'.encode()).hexdigest()
    age = int(dice(seed, 'vinbigdata plan', patient).integers(18, 90))
    yield Shot(f'{folder}/{name}.dicom', patient, 0, (first, *second) if first else (), age=age)


def take(seed, name, shot, size, vendor):
  """The chest, its findings in the archive's words."""
  seen = take_chest(seed, name, shot, size, vendor)
  boxes = tuple((DRAWN[finding], *box) for finding, *box in seen.boxes)
  return dataclasses.replace(seen, findings=frozenset(finding for finding, *_ in boxes), boxes=boxes)


def save(root, shot, radiograph):
  """12 bits with a window, every third inverted; every fifth has 8 bits and no window."""
  if shot.patient % 5 == 4:
    save_dicom(root / shot.path, radiograph.image, bits=8, kind='MONOCHROME2')
    return
  stored, kind = radiograph.image.astype(np.uint16) * (WHITE // 255), 'MONOCHROME2'
  if shot.patient % 3 == 1:
    stored, kind = WHITE - stored, 'MONOCHROME1'
  # A window of this width about this centre shows 0 black and WHITE white (DICOM PS3.3 C.11.2.1.2.1).
  save_dicom(root / shot.path, stored, bits=12, kind=kind, WindowCenter=WHITE / 2 + 0.5, WindowWidth=WHITE + 1)


def index(root, pairs):
  """A row for each box of each reader, and one of 'No finding' for each reader who saw nothing."""
  rows = []
  for shot, seen in pairs:
    name = shot.path.rsplit('/', 1)[1].removesuffix('.dicom')
    if shot.path.startswith('test/'):
      continue
    for place, reader in enumerate((1 + shot.patient % 5, 8 + shot.patient % 3, 11 + shot.patient % 7)):
      found = [read_box(box, place, seen.image.shape[1]) for box in (seen.boxes if place == 1 else seen.boxes[:1])]
      rows += [(name, kind, CLASSES.index(kind), f'R{reader}', *sides) for kind, *sides in found]
      rows += [] if found else [(name, 'No finding', 14, f'R{reader}', '', '', '', '')]
  write_rows(root / 'train.csv', 'image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max', rows)


def read_box(box, place, width):
  """A box as the reader at this place draws it: the first a pixel to the left, the third a pixel to the right."""
  kind, x, y, w, h = box
  shift = place - 1 if w >= 8 and 0 < x and x + w < width else 0
  return kind, x + shift, y, x + w + shift, y + h


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.85, detail=0.55, mark=0.05, shutter=0.35, photons=3.5e4, scatter=0.22, low=1), plan, take,
  save, index,
)
