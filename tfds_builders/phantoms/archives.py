"""The archives in miniature: which exposures, under which names, and the tables beside them.

A dataset is one `Archive` and one line in ARCHIVES. Layouts follow the public archives with their quirks, see
the README.md of each builder.
"""

import csv
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest, take_child, take_hand, take_jaw, take_limb


@dataclasses.dataclass(frozen=True)
class Archive:
  """plan(seed) yields Shots, patient by patient, endlessly.  take(seed, name, shot, size, vendor) makes the Radiograph.
  save(root, shot, radiograph) writes its files.  index(root, pairs) writes the tables and the archive's oddities, given
  (shot, Radiograph without pixels) of all images in order.
  """

  vendor: Vendor
  plan: Callable
  take: Callable
  save: Callable
  index: Callable


def save_png(root, shot, radiograph, mode='L'):
  path = root / shot.path
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(radiograph.image).convert(mode).save(path, compress_level=1)


def write_rows(path, header, rows):
  """A CSV table as the archives have them: the header verbatim, nothing quoted that need not be."""
  with open(path, 'w', newline='') as out:
    if header:
      out.write(header + '\n')
    csv.writer(out, lineterminator='\n').writerows(rows)


def leave_fork(path):
  """The resource fork that macOS leaves beside a file it has packed: it bears the image's name and is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_name('._' + path.name).write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ' + bytes(50))


# NIH ChestX-ray14 ----------------------------------------------------------------------------------------------------

NIH_HEADER = (
  'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
  'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]'
)
NIH_BOXED = {'Atelectasis', 'Effusion', 'Cardiomegaly', 'Infiltration', 'Pneumonia', 'Pneumothorax', 'Mass', 'Nodule'}
DENSE = {'Effusion', 'Consolidation', 'Pneumonia', 'Pneumothorax'}  # these share a lung and would hide each other
EXCLUDED = ({'Mass', 'Nodule'}, {'Emphysema', 'Cardiomegaly'}, {'Emphysema', 'Atelectasis'}, {'Hernia', 'Cardiomegaly'})


def plan_nih(seed):
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


def save_nih(root, shot, radiograph):
  save_png(root, shot, radiograph, 'RGBA' if (shot.patient, shot.turn) == (1, 0) else 'L')


def index_nih(root, pairs):
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


# Kermany pneumonia ---------------------------------------------------------------------------------------------------


def plan_kermany(seed):
  for patient in itertools.count():
    rng = dice(seed, 'kermany plan', patient)
    kind = ('normal', 'bacteria', 'normal', 'virus')[patient % 4]
    split = 'test' if patient % 5 == 3 else 'val' if patient % 5 == 4 and patient // 5 % 4 < 2 else 'train'
    age = int(rng.integers(1, 6))
    if kind == 'normal':
      stem = f'IM-{115 + patient:04d}-0001' if patient % 8 < 4 else f'NORMAL2-IM-{381 + patient:04d}-0001'
      yield Shot(f'chest_xray/{split}/NORMAL/{stem}.jpeg', patient, 0, age=age)
      continue
    for turn in range(int(rng.integers(1, 4))):
      name = f'person{1000 + patient}_{kind}_{2000 + 3 * patient + turn}.jpeg'
      yield Shot(f'chest_xray/{split}/PNEUMONIA/{name}', patient, turn, (kind,), age=age)


def save_kermany(root, shot, radiograph):
  path = root / shot.path
  path.parent.mkdir(parents=True, exist_ok=True)
  mode = 'RGB' if (shot.patient, shot.turn) == (1, 0) else 'L'
  Image.fromarray(radiograph.image).convert(mode).save(path, quality=92)


def index_kermany(root, pairs):
  """The second copy inside the first, the resource forks and the .DS_Store of the Kaggle archive."""
  (root / 'chest_xray/.DS_Store').write_bytes(b'\x00\x00\x00\x01Bud1')
  for split, kind in itertools.product(('train', 'val', 'test'), ('NORMAL', 'PNEUMONIA')):
    (root / 'chest_xray' / split / kind).mkdir(parents=True, exist_ok=True)
  for shot, _ in pairs[:8]:
    inner = shot.path.replace('chest_xray/', 'chest_xray/chest_xray/', 1)
    (root / inner).parent.mkdir(parents=True, exist_ok=True)
    (root / inner).write_bytes((root / shot.path).read_bytes())
    leave_fork(root / shot.path.replace('chest_xray/', 'chest_xray/__MACOSX/', 1))


# RSNA bone age -------------------------------------------------------------------------------------------------------


def plan_bone_age(seed):
  for patient in itertools.count():
    test = patient % 9 == 8
    folder = 'boneage-test-dataset' if test else 'boneage-training-dataset'
    number = 4360 + patient // 9 if test else 5000 + patient if patient > 2000 else 1377 + patient
    yield Shot(f'{folder}/{folder}/{number}.png', patient, 0)


def index_bone_age(root, pairs):
  stem = lambda shot: shot.path.rsplit('/', 1)[1][:-4]  # noqa: E731
  train = [(stem(shot), int(seen.value), seen.sex == 'M') for shot, seen in pairs if 'training' in shot.path]
  test = [(stem(shot), seen.sex) for shot, seen in pairs if 'test' in shot.path]
  write_rows(root / 'boneage-training-dataset.csv', 'id,boneage,male', train)
  write_rows(root / 'boneage-test-dataset.csv', 'Case ID,Sex', test)
  for folder in ('boneage-training-dataset', 'boneage-test-dataset'):
    (root / folder / folder).mkdir(parents=True, exist_ok=True)


def take_hand_any_size(seed, name, shot, size, vendor):
  """The archive's pictures are of many sizes: 0.8 to 1.2 of the size asked for."""
  return take_hand(seed, name, shot, round(size * dice(seed, name, shot.patient, 'size').uniform(0.8, 1.2)), vendor)


# MURA ----------------------------------------------------------------------------------------------------------------

PARTS = ('WRIST', 'SHOULDER', 'ELBOW', 'FINGER', 'HAND', 'FOREARM', 'HUMERUS')


def plan_mura(seed):
  """Every third patient has a normal and an abnormal study; each image of an abnormal study shows the abnormality."""
  for patient in itertools.count():
    rng = dice(seed, 'mura plan', patient)
    valid = patient % 5 == 4
    number, part = (11185 if valid else 1) + patient, PARTS[patient % 7]
    labels = (True, False) if patient % 3 == 0 else (bool(rng.random() < 0.42),)
    turn = 0
    for study, positive in enumerate(labels, 1):
      kind = ('fracture', 'hardware', 'fracture', 'lesion')[int(rng.integers(4))] if positive else None
      folder = f'MURA-v1.1/{"valid" if valid else "train"}/XR_{part}/patient{number:05d}'
      folder += f'/study{study}_{"positive" if positive else "negative"}'
      for image in range(1, int(rng.integers(2, 5))):
        yield Shot(f'{folder}/image{image}.png', patient, turn, (kind,) if kind else (), part)
        turn += 1


def save_mura(root, shot, radiograph):
  save_png(root, shot, radiograph, 'RGB' if shot.patient % 11 == 2 else 'L')


def index_mura(root, pairs):
  """Four tables without header; study paths end with a slash; one resource fork."""
  base = root / 'MURA-v1.1'
  for split in ('train', 'valid'):
    (base / split).mkdir(parents=True, exist_ok=True)
    paths = [shot.path for shot, _ in pairs if f'/{split}/' in shot.path]
    studies = dict.fromkeys(path.rsplit('/', 1)[0] + '/' for path in paths)
    write_rows(base / f'{split}_image_paths.csv', '', [(path,) for path in paths])
    write_rows(base / f'{split}_labeled_studies.csv', '', [(study, int('_positive' in study)) for study in studies])
  leave_fork(root / pairs[0][0].path)


# Panoramic, mandible -------------------------------------------------------------------------------------------------


def plan_panoramic(seed):
  for patient in itertools.count():
    yield Shot(f'Images/{patient + 1}.png', patient, 0)


def save_panoramic(root, shot, radiograph):
  """An expert's file is the picture with everything but the mandible blanked; some files have three channels."""
  mode = 'RGB' if shot.patient % 4 == 3 else 'L'
  save_png(root, shot, radiograph, mode)
  for folder, mask in (('Segmentation1', 'mandible'), ('Segmentation2', 'mandible_second')):
    blanked = dataclasses.replace(
      radiograph, image=np.where(radiograph.masks[mask], radiograph.image, 0).astype(np.uint8)
    )
    save_png(root, dataclasses.replace(shot, path=shot.path.replace('Images', folder)), blanked, mode)


ARCHIVES = {
  'nih_chest_xray': Archive(
    Vendor(gain=1.2, gamma=0.8, detail=0.35, mark=0.045, shutter=0.3, low=1), plan_nih, take_chest, save_nih, index_nih
  ),
  'kermany_pneumonia': Archive(
    Vendor(gain=1.2, detail=0.9, reach=0.05, mark=0.055, shutter=0.35, photons=3e4, scatter=0.15, high=99.9),
    plan_kermany, take_child, save_kermany, index_kermany,
  ),
  'rsna_bone_age': Archive(
    Vendor(gain=1.1, gamma=0.75, detail=0.4, mark=0.06, shutter=0.35, low=6, high=99.3, blur=0.5),
    plan_bone_age, take_hand_any_size, save_png, index_bone_age,
  ),
  'mura': Archive(
    Vendor(gain=1.2, gamma=0.85, detail=0.5, mark=0.06, shutter=0.5, low=4, photons=1.2e4, blur=0.7),
    plan_mura, take_limb, save_mura, index_mura,
  ),
  'panoramic_dental': Archive(
    Vendor(gain=1.5, detail=0.9, reach=0.06, mark=0.07, shutter=0, photons=6e4, scatter=0.1),
    plan_panoramic, take_jaw, save_panoramic, lambda root, pairs: None,
  ),
}


def find_archive(name):
  if name not in ARCHIVES:
    raise ValueError(f'no phantom archive {name!r}; have {", ".join(sorted(ARCHIVES))}')
  return ARCHIVES[name]
