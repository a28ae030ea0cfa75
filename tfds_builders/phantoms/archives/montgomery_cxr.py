"""The Montgomery County set in miniature: a mask for each lung."""

import itertools

from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.lungs import ask, take_lungs
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice


def plan(seed):
  """Numbers have gaps."""
  for patient in itertools.count():
    ill, age = int(patient % 7 in (1, 4, 6)), int(dice(seed, 'montgomery plan', patient).integers(4, 90))
    name = f'MCUCXR_{patient + patient // 6 * 2 + 1:04d}_{ill}'
    yield Shot(f'MontgomerySet/CXR_png/{name}.png', patient, 0, ask(seed, 'montgomery', patient, ill), age=age)


def take_film(seed, name, shot, size, vendor):
  """The films are 4020 x 4892, upright or lying."""
  short = round(size * 4020 / 4892)
  return take_lungs(seed, name, shot, size, vendor, (size, short) if shot.patient % 3 == 1 else (short, size))


def save(root, shot, radiograph):
  save_png(root, shot, radiograph)
  for side in ('left', 'right'):
    name = shot.path.rsplit('/', 1)[1]
    save_mask(root / f'MontgomerySet/ManualMask/{side}Mask/{name}', radiograph, f'lung_{side}')


def index(root, pairs):
  folder = root / 'MontgomerySet/ClinicalReadings'
  folder.mkdir()
  for shot, seen in pairs:
    finding = 'Cavitary infiltrate in the upper lobe' if seen.findings else 'normal'
    reading = f"Patient's Sex: {seen.sex} \nPatient's Age: {seen.age:03d}Y\n{finding}"
    (folder / shot.path.rsplit('/', 1)[1].replace('.png', '.txt')).write_text(reading)


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.9, detail=0.3, mark=0.05, shutter=0.4, photons=2.5e4, low=1, high=99.7),
  plan, take_film, save, index,
)
