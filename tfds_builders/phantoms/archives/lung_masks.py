"""Chest Xray Masks and Labels in miniature, as on Kaggle.

The real archive holds the images of the Shenzhen and the Montgomery set; here they are other phantoms than there.
"""

import itertools
import shutil

from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.lungs import ask, read_out, take_lungs
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice

TOP = 'Lung Segmentation'


def plan(seed):
  for patient in itertools.count():
    ill, age = patient % 2, int(dice(seed, 'lung masks plan', patient).integers(15, 80))
    city, first = ('MCUCXR', 1) if patient % 5 == 0 else ('CHNCXR', 327 if ill else 1)
    path = f'{TOP}/CXR_png/{city}_{first + patient // 2:04d}_{ill}.png'
    yield Shot(path, patient, 0, ask(seed, 'lung masks', patient, ill), age=age)


def save(root, shot, radiograph):
  """The two cities name their masks differently; an image without a mask lies in test, too."""
  stem = shot.path.rsplit('/', 1)[1][:-4]
  save_png(root, shot, radiograph)
  if shot.patient % 8 == 7:
    (root / TOP / 'test').mkdir(exist_ok=True)
    shutil.copy(root / shot.path, root / TOP / 'test' / f'{stem}.png')
  else:
    name = f'{stem}.png' if stem.startswith('MCU') else f'{stem}_mask.png'
    save_mask(root / TOP / 'masks' / name, radiograph, 'lung_left', 'lung_right')


def index(root, pairs):
  """The readings, a checkpoint of a notebook, and the tree once more below data."""
  folder = root / TOP / 'ClinicalReadings'
  folder.mkdir()
  for shot, seen in pairs:
    reading = read_out(seen.sex, seen.age, shot.patient) + ('PTB' if seen.findings else 'normal')
    (folder / shot.path.rsplit('/', 1)[1].replace('.png', '.txt')).write_text(reading)
  (root / TOP / '.ipynb_checkpoints').mkdir()
  (root / TOP / '.ipynb_checkpoints/Montgomery-checkpoint.ipynb').write_text('{}')
  shutil.copytree(root / TOP, root / 'data' / TOP)


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.85, detail=0.5, mark=0.05, shutter=0.2, photons=3e4, low=0.8, high=99.8),
  plan, take_lungs, save, index,
)
