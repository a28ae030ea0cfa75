"""The Shenzhen set in miniature, with the lung masks that others drew of most of it."""

import itertools

from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.lungs import ask, read_out, take_lungs
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice


def plan(seed):
  """Numbers 1 to 326 are normal, 327 to 662 have tuberculosis."""
  for patient in itertools.count():
    ill, age = patient % 2, int(dice(seed, 'shenzhen plan', patient).integers(15, 80))
    name = f'CHNCXR_{(327 if ill else 1) + patient // 2:04d}_{ill}'
    yield Shot(f'ChinaSet_AllFiles/CXR_png/{name}.png', patient, 0, ask(seed, 'shenzhen', patient, ill), age=age)


def save(root, shot, radiograph):
  """Grey stored as colour, or with a palette; one patient in seven has no mask."""
  save_png(root, shot, radiograph, 'P' if shot.patient % 3 == 1 else 'RGB')
  if shot.patient % 7 != 5:
    stem = shot.path.rsplit('/', 1)[1][:-4]
    save_mask(root / f'mask/mask/{stem}_mask.png', radiograph, 'lung_left', 'lung_right')


def index(root, pairs):
  folder = root / 'ChinaSet_AllFiles/ClinicalReadings'
  folder.mkdir()
  for shot, seen in pairs:
    finding = 'secondary PTB in the upper field' if seen.findings else 'normal'
    reading = read_out(seen.sex, seen.age, shot.patient) + finding
    (folder / shot.path.rsplit('/', 1)[1].replace('.png', '.txt')).write_text(reading)
  (root / 'ChinaSet_AllFiles/NLM-ChinaCXRSet-ReadMe.docx').write_bytes(b'PK')


ARCHIVE = Archive(
  Vendor(gain=1.25, gamma=0.8, detail=0.6, reach=0.05, mark=0.05, shutter=0.15, photons=4e4, low=0.5, high=99.8),
  plan, take_lungs, save, index,
)
