"""Kermany pneumonia in miniature, as on Kaggle."""

import itertools

from PIL import Image

from tfds_builders.phantoms.layout import Archive, leave_fork
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_child


def plan(seed):
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


def save(root, shot, radiograph):
  path = root / shot.path
  path.parent.mkdir(parents=True, exist_ok=True)
  mode = 'RGB' if (shot.patient, shot.turn) == (1, 0) else 'L'
  Image.fromarray(radiograph.image).convert(mode).save(path, quality=92)


def index(root, pairs):
  """The second copy inside the first, the resource forks and the .DS_Store of the Kaggle archive."""
  (root / 'chest_xray/.DS_Store').write_bytes(b'\x00\x00\x00\x01Bud1')
  for split, kind in itertools.product(('train', 'val', 'test'), ('NORMAL', 'PNEUMONIA')):
    (root / 'chest_xray' / split / kind).mkdir(parents=True, exist_ok=True)
  for shot, _ in pairs[:8]:
    inner = shot.path.replace('chest_xray/', 'chest_xray/chest_xray/', 1)
    (root / inner).parent.mkdir(parents=True, exist_ok=True)
    (root / inner).write_bytes((root / shot.path).read_bytes())
    leave_fork(root / shot.path.replace('chest_xray/', 'chest_xray/__MACOSX/', 1))


ARCHIVE = Archive(
  Vendor(gain=1.2, detail=0.9, reach=0.05, mark=0.055, shutter=0.35, photons=3e4, scatter=0.15, high=99.9),
  plan, take_child, save, index,
)
