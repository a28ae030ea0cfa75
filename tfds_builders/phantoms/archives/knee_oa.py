"""Knee osteoarthritis in miniature, in the layout of Mendeley."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import cv2
from PIL import Image

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_knee

ROOT = 'KneeXrayData/ClsKLData'


def plan(seed: int) -> Iterator[Exposure]:
  """Most patients have two knees. The second may have another grade and be in another folder."""
  for patient in itertools.count():
    rng = seeded_rng(seed, 'knee plan', patient)
    grade = patient % 5
    for number, side in enumerate('RL'[:2 if rng.random() < 0.8 else 1]):
      folder = ('train', 'train', 'val', 'test')[int(rng.integers(4))]
      grade = min(max(grade + number * int(rng.integers(-1, 2)), 0), 4)
      path = f'{ROOT}/kneeKL224/{folder}/{grade}/{9000001 + patient}{side}.png'
      yield Exposure(path, patient, number, (str(grade),), side)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Makes all folders, repeats the test knees in auto_test, and all knees a third larger in kneeKL299."""
  for folder, grade in itertools.product(('train', 'val', 'test', 'auto_test'), range(5)):
    (root / ROOT / 'kneeKL224' / folder / str(grade)).mkdir(parents=True, exist_ok=True)
  for exposure, radiograph in pairs:
    knee = root / exposure.path
    size = round(radiograph.image.shape[0] * 299 / 224)
    large = root / exposure.path.replace('kneeKL224', 'kneeKL299')
    large.parent.mkdir(parents=True, exist_ok=True)
    Image.open(knee).resize((size, size)).save(large)
    if '/test/' in exposure.path:
      picture = cv2.imread(str(knee), cv2.IMREAD_UNCHANGED)
      assert picture is not None
      name = f'{9000001 + exposure.patient}_{exposure.number + 1}.png'
      cv2.imwrite(str(root / ROOT / 'kneeKL224/auto_test' / exposure.requested[0] / name), picture[2:, 2:])


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.9, detail=0.5, mark=0, shutter=0.2, photons=2.5e4, scatter=0.2), plan, render_knee, save_png,
  write_tables,
)
