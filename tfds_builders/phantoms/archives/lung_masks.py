"""Chest Xray Masks and Labels in miniature, in the layout of Kaggle.

The real archive holds the images of Shenzhen and Montgomery. These phantoms differ from the phantoms of those two.
"""

import itertools
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.tuberculosis import choose_findings, render_lungs, write_reading

TOP = 'Lung Segmentation'


def plan(seed: int) -> Iterator[Exposure]:
  for patient in itertools.count():
    ill, age = patient % 2, int(seeded_rng(seed, 'lung masks plan', patient).integers(15, 80))
    city, first = ('MCUCXR', 1) if patient % 5 == 0 else ('CHNCXR', 327 if ill else 1)
    path = f'{TOP}/CXR_png/{city}_{first + patient // 2:04d}_{ill}.png'
    yield Exposure(path, patient, 0, choose_findings(seed, 'lung masks', patient, ill), age=age)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """Masks are named differently for the two cities. An image without a mask is also in test."""
  stem = exposure.stem
  save_png(root, exposure, radiograph)
  if exposure.patient % 8 == 7:
    (root / TOP / 'test').mkdir(exist_ok=True)
    shutil.copy(root / exposure.path, root / TOP / 'test' / f'{stem}.png')
  else:
    name = f'{stem}.png' if stem.startswith('MCU') else f'{stem}_mask.png'
    save_mask(root / TOP / 'masks' / name, radiograph, 'lung_left', 'lung_right')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Adds the clinical readings, a notebook checkpoint, and a second copy of the tree in data."""
  folder = root / TOP / 'ClinicalReadings'
  folder.mkdir()
  for exposure, radiograph in pairs:
    reading = write_reading(radiograph.sex, radiograph.age, exposure.patient)
    reading += 'PTB' if radiograph.findings else 'normal'
    (folder / f'{exposure.stem}.txt').write_text(reading)
  (root / TOP / '.ipynb_checkpoints').mkdir()
  (root / TOP / '.ipynb_checkpoints/Montgomery-checkpoint.ipynb').write_text('{}')
  shutil.copytree(root / TOP, root / 'data' / TOP)


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.85, detail=0.5, mark=0.05, shutter=0.2, photons=3e4, low=0.8, high=99.8),
  plan, render_lungs, save, write_tables,
)
