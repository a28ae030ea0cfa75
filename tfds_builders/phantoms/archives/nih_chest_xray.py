"""NIH ChestX-ray14 in miniature."""

import itertools

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.layout import Archive, save_png, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest

NIH_HEADER = (
  'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
  'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]'
)
NIH_BOXED = {'Atelectasis', 'Effusion', 'Cardiomegaly', 'Infiltration', 'Pneumonia', 'Pneumothorax', 'Mass', 'Nodule'}
DENSE = {'Effusion', 'Consolidation', 'Pneumonia', 'Pneumothorax'}  # these share a lung and would hide each other
EXCLUDED = ({'Mass', 'Nodule'}, {'Emphysema', 'Cardiomegaly'}, {'Emphysema', 'Atelectasis'}, {'Hernia', 'Cardiomegaly'})


def plan(seed):
  """Every second patient is ill; the first findings go through the list, so that small archives show many."""
  for patient in itertools.count():
    rng = dice(seed, 'nih plan', patient)
    age, visits = int(rng.integers(18, 90)), int(rng.integers(1, 4))
    ill = [FINDINGS[patient // 2 % len(FINDINGS)]] if patient % 2 == 0 else []
    if ill and rng.random() < 0.45:
      other = FINDINGS[int(rng.integers(len(FINDINGS)))]
      hidden = {ill[0], other} in EXCLUDED or {ill[0], other} <= DENSE
      ill += [] if other in ill or hidden else [other]
    for visit in range(visits):
      # findings come and heal: a later visit may lack one, and a healthy patient may fall ill
      asked = [f for f in ill if visit == 0 or rng.random() < 0.75]
      if not ill and visit and rng.random() < 0.2:
        asked = [FINDINGS[int(rng.integers(len(FINDINGS)))]]
      name = f'images_001/images/{patient + 1:08d}_{visit:03d}.png'
      yield Shot(name, patient, visit, tuple(sorted(asked)), age=age + visit // 2)


def save(root, shot, radiograph):
  save_png(root, shot, radiograph, 'RGBA' if (shot.patient, shot.turn) == (1, 0) else 'L')


def index(root, pairs):
  """Boxes stand in the 1024 × 1024 frame, as published, whatever the size of the picture: multiply by size / 1024."""
  rows, boxes, lists = [], [], {'train_val_list.txt': [], 'test_list.txt': []}
  for shot, seen in pairs:
    name, size = shot.path.rsplit('/', 1)[1], seen.image.shape[0]
    rows.append(
      (
        name, '|'.join(sorted(seen.findings)) or 'No Finding', shot.turn, shot.patient + 1, seen.age, seen.sex,
        seen.view, size, size, round(360 / size, 6), round(360 / size, 6),
      )
    )
    for finding, *box in seen.boxes:
      if finding in NIH_BOXED:
        label = 'Infiltrate' if finding == 'Infiltration' else finding
        boxes.append((name, label, *(value * 1024 / size for value in box), '', '', ''))
    lists['test_list.txt' if shot.patient % 5 == 4 else 'train_val_list.txt'].append(name)
  write_rows(root / 'Data_Entry_2017_v2020.csv', NIH_HEADER, rows)
  write_rows(root / 'BBox_List_2017.csv', 'Image Index,Finding Label,Bbox [x,y,w,h],,,', boxes)
  for name, lines in lists.items():
    (root / name).write_text(''.join(line + '\n' for line in lines))


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.8, detail=0.35, mark=0.045, shutter=0.3, low=1), plan, take_chest, save, index
)
