"""Knees with Kellgren-Lawrence grades in miniature, as Mendeley's archive unpacks."""

import itertools

import cv2
from PIL import Image

from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_knee

ROOT = 'KneeXrayData/ClsKLData'


def plan(seed):
  """Two knees of most patients; the second may have another grade and lie in another folder."""
  for patient in itertools.count():
    rng = dice(seed, 'knee plan', patient)
    grade = patient % 5
    for turn, side in enumerate('RL'[:2 if rng.random() < 0.8 else 1]):
      folder = ('train', 'train', 'val', 'test')[int(rng.integers(4))]
      grade = min(max(grade + turn * int(rng.integers(-1, 2)), 0), 4)
      yield Shot(f'{ROOT}/kneeKL224/{folder}/{grade}/{9000001 + patient}{side}.png', patient, turn, (str(grade),), side)


def index(root, pairs):
  """Every folder of a grade is there; the knees of test are in auto_test again, and all once more a third larger."""
  for folder, grade in itertools.product(('train', 'val', 'test', 'auto_test'), range(5)):
    (root / ROOT / 'kneeKL224' / folder / str(grade)).mkdir(parents=True, exist_ok=True)
  for shot, seen in pairs:
    knee = root / shot.path
    size = round(seen.image.shape[0] * 299 / 224)
    large = root / shot.path.replace('kneeKL224', 'kneeKL299')
    large.parent.mkdir(parents=True, exist_ok=True)
    Image.open(knee).resize((size, size)).save(large)
    if '/test/' in shot.path:
      picture = cv2.imread(str(knee), cv2.IMREAD_UNCHANGED)
      name = f'{9000001 + shot.patient}_{shot.turn + 1}.png'
      cv2.imwrite(str(root / ROOT / 'kneeKL224/auto_test' / shot.asked[0] / name), picture[2:, 2:])


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.9, detail=0.5, mark=0, shutter=0.2, photons=2.5e4, scatter=0.2), plan, take_knee, save_png,
  index,
)
