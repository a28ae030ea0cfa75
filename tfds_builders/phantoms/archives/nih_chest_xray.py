"""NIH ChestX-ray14 in miniature."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

HEADER = (
  'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
  'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]'
)
BOXED = {'Atelectasis', 'Effusion', 'Cardiomegaly', 'Infiltration', 'Pneumonia', 'Pneumothorax', 'Mass', 'Nodule'}
# Drawn in the same lung, where they would hide each other.
DENSE = {'Effusion', 'Consolidation', 'Pneumonia', 'Pneumothorax'}
EXCLUDED = ({'Mass', 'Nodule'}, {'Emphysema', 'Cardiomegaly'}, {'Emphysema', 'Atelectasis'}, {'Hernia', 'Cardiomegaly'})


def plan(seed: int) -> Iterator[Exposure]:
  """Every second patient is ill. The first finding cycles through the list, so small archives show many."""
  for patient in itertools.count():
    rng = seeded_rng(seed, 'nih plan', patient)
    age, visits = int(rng.integers(18, 90)), int(rng.integers(1, 4))
    ill = [FINDINGS[patient // 2 % len(FINDINGS)]] if patient % 2 == 0 else []
    if ill and rng.random() < 0.45:
      other = FINDINGS[int(rng.integers(len(FINDINGS)))]
      hidden = {ill[0], other} in EXCLUDED or {ill[0], other} <= DENSE
      ill += [] if other in ill or hidden else [other]
    for visit in range(visits):
      # Findings change over time: a later visit may lack one, and a healthy patient may fall ill.
      requested = [f for f in ill if visit == 0 or rng.random() < 0.75]
      if not ill and visit and rng.random() < 0.2:
        requested = [FINDINGS[int(rng.integers(len(FINDINGS)))]]
      name = f'images_001/images/{patient + 1:08d}_{visit:03d}.png'
      yield Exposure(name, patient, visit, tuple(sorted(requested)), age=age + visit // 2)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  save_png(root, exposure, radiograph, 'RGBA' if (exposure.patient, exposure.number) == (1, 0) else 'L')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Writes the label table, the box list and the split lists. Boxes are in pixels of a 1024 x 1024 image."""
  rows, boxes = [], []
  lists: dict[str, list[str]] = {'train_val_list.txt': [], 'test_list.txt': []}
  for exposure, radiograph in pairs:
    name, size = exposure.file_name, radiograph.image.shape[0]
    labels, spacing = '|'.join(sorted(radiograph.findings)) or 'No Finding', round(360 / size, 6)
    rows.append((name, labels, exposure.number, exposure.patient + 1, radiograph.age, radiograph.sex, radiograph.view,
                 size, size, spacing, spacing))
    for finding, *box in radiograph.boxes:
      if finding in BOXED:
        label = 'Infiltrate' if finding == 'Infiltration' else finding
        boxes.append((name, label, *(value * 1024 / size for value in box), '', '', ''))
    lists['test_list.txt' if exposure.patient % 5 == 4 else 'train_val_list.txt'].append(name)
  write_rows(root / 'Data_Entry_2017_v2020.csv', HEADER, rows)
  write_rows(root / 'BBox_List_2017.csv', 'Image Index,Finding Label,Bbox [x,y,w,h],,,', boxes)
  for name, lines in lists.items():
    (root / name).write_text(''.join(line + '\n' for line in lines))


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.8, detail=0.35, mark=0.045, shutter=0.3, low=1), plan, render_chest, save, write_tables
)
