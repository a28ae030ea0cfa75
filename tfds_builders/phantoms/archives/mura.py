"""MURA in miniature."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png, write_resource_fork, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_limb

# What an abnormal study shows. Of 100 studies that radiologists reviewed, 53 had fractures, 48 hardware, 35
# degenerative joints and 29 other abnormalities (Rajpurkar et al. 2018, section 2.5). Lesions stand for the last two.
ABNORMALITIES = (('fracture',), ('fracture', 'hardware'), ('hardware',), ('lesion',))
PARTS = ('WRIST', 'SHOULDER', 'ELBOW', 'FINGER', 'HAND', 'FOREARM', 'HUMERUS')


def plan(seed: int) -> Iterator[Exposure]:
  """Every third patient has a normal and an abnormal study; each image of an abnormal study shows the abnormality."""
  for patient in itertools.count():
    rng = seeded_rng(seed, 'mura plan', patient)
    valid = patient % 5 == 4
    number, part = (11185 if valid else 1) + patient, PARTS[patient % 7]
    labels = (True, False) if patient % 3 == 0 else (bool(rng.random() < 0.42),)
    images = 0
    for study, positive in enumerate(labels, 1):
      requested = ABNORMALITIES[int(rng.integers(4))] if positive else ()
      folder = f'MURA-v1.1/{"valid" if valid else "train"}/XR_{part}/patient{number:05d}'
      folder += f'/study{study}_{"positive" if positive else "negative"}'
      for image in range(1, int(rng.integers(2, 5))):
        yield Exposure(f'{folder}/image{image}.png', patient, images, requested, part)
        images += 1


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  save_png(root, exposure, radiograph, 'RGB' if exposure.patient % 11 == 2 else 'L')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Writes four tables without header, in which study paths end with a slash, and one resource fork."""
  base = root / 'MURA-v1.1'
  for split in ('train', 'valid'):
    (base / split).mkdir(parents=True, exist_ok=True)
    paths = [exposure.path for exposure, _ in pairs if f'/{split}/' in exposure.path]
    studies = dict.fromkeys(path.rsplit('/', 1)[0] + '/' for path in paths)
    write_rows(base / f'{split}_image_paths.csv', '', [(path,) for path in paths])
    write_rows(base / f'{split}_labeled_studies.csv', '', [(study, int('_positive' in study)) for study in studies])
  write_resource_fork(root / pairs[0][0].path)


ARCHIVE = Archive(
  Vendor(gain=1.2, gamma=0.85, detail=0.5, mark=0.06, shutter=0.5, low=4, photons=1.2e4, blur=0.7),
  plan, render_limb, save, write_tables,
)
