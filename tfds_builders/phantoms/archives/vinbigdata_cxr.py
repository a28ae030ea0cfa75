"""VinBigData in miniature: DICOM files, and three readers who do not quite agree."""

import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_dicom, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

CLASSES = ('Aortic enlargement', 'Atelectasis', 'Calcification', 'Cardiomegaly', 'Consolidation', 'ILD',
           'Infiltration', 'Lung Opacity', 'Nodule/Mass', 'Other lesion', 'Pleural effusion', 'Pleural thickening',
           'Pneumothorax', 'Pulmonary fibrosis')
# {finding of the phantoms: class of the archive}, for the classes that can be drawn.
DRAWN = {'Effusion': 'Pleural effusion', 'Cardiomegaly': 'Cardiomegaly', 'Mass': 'Nodule/Mass', 'Interstitial': 'ILD',
         'Pleural_Thickening': 'Pleural thickening', 'Fibrosis': 'Pulmonary fibrosis', 'Pneumothorax': 'Pneumothorax',
         'Nodule': 'Nodule/Mass', 'Infiltration': 'Infiltration', 'Pneumonia': 'Lung Opacity',
         'Consolidation': 'Consolidation', 'Atelectasis': 'Atelectasis'}
WHITE = 4080  # stored value of white: 16 x 255


def plan(seed: int) -> Iterator[Exposure]:
  """Two of three patients are ill. Some of these also have a large heart, which only one reader reports."""
  for patient in itertools.count():
    folder = 'test' if patient % 10 == 8 else 'train'
    first = tuple(DRAWN)[patient // 3 * 2 % len(DRAWN) + patient % 3 - 1] if patient % 3 else None
    second = ('Cardiomegaly',) if patient % 4 == 1 and first not in (None, 'Cardiomegaly') else ()
    name = hashlib.md5(f'{seed} {patient}'.encode()).hexdigest()
    age = int(seeded_rng(seed, 'vinbigdata plan', patient).integers(18, 90))
    yield Exposure(f'{folder}/{name}.dicom', patient, 0, (first, *second) if first else (), age=age)


def render(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """A chest whose findings have the archive's names."""
  radiograph = render_chest(seed, name, exposure, size, vendor)
  boxes = tuple((DRAWN[finding], *box) for finding, *box in radiograph.boxes)
  return dataclasses.replace(radiograph, findings=frozenset(finding for finding, *_ in boxes), boxes=boxes)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """12 bits with a window, every third image inverted; every fifth has 8 bits and no window."""
  if exposure.patient % 5 == 4:
    save_dicom(root / exposure.path, radiograph.image, bits=8, photometric='MONOCHROME2')
    return
  stored, photometric = radiograph.image.astype(np.uint16) * (WHITE // 255), 'MONOCHROME2'
  if exposure.patient % 3 == 1:
    stored, photometric = WHITE - stored, 'MONOCHROME1'
  # This window displays 0 as black and WHITE as white (DICOM PS3.3 C.11.2.1.2.1).
  save_dicom(root / exposure.path, stored, bits=12, photometric=photometric, WindowCenter=WHITE / 2 + 0.5,
             WindowWidth=WHITE + 1)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Writes a row per box and reader, and a row 'No finding' per reader who saw nothing."""
  rows = []
  for exposure, radiograph in pairs:
    name = exposure.stem
    if exposure.path.startswith('test/'):
      continue
    readers = (1 + exposure.patient % 5, 8 + exposure.patient % 3, 11 + exposure.patient % 7)
    for number, reader in enumerate(readers):
      boxes = radiograph.boxes if number == 1 else radiograph.boxes[:1]
      found = [shift_box(box, number, radiograph.image.shape[1]) for box in boxes]
      rows += [(name, class_name, CLASSES.index(class_name), f'R{reader}', *corners) for class_name, *corners in found]
      rows += [] if found else [(name, 'No finding', 14, f'R{reader}', '', '', '', '')]
  write_rows(root / 'train.csv', 'image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max', rows)


def shift_box(box: tuple, reader: int, width: int) -> tuple:
  """(class_name, x0, y0, x1, y1) as a reader draws it: the first a pixel to the left, the third one to the right."""
  class_name, x, y, w, h = box
  shift = reader - 1 if w >= 8 and 0 < x and x + w < width else 0
  return class_name, x + shift, y, x + w + shift, y + h


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.85, detail=0.55, mark=0.05, shutter=0.35, photons=3.5e4, scatter=0.22, low=1), plan, render,
  save, write_tables,
)
