"""Kermany pneumonia in miniature, in the layout of Kaggle."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from PIL import Image

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, write_resource_fork
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_child


def plan(seed: int) -> Iterator[Exposure]:
  for patient in itertools.count():
    rng = seeded_rng(seed, 'kermany plan', patient)
    label = ('normal', 'bacteria', 'normal', 'virus')[patient % 4]
    split = 'test' if patient % 5 == 3 else 'val' if patient % 5 == 4 and patient // 5 % 4 < 2 else 'train'
    age = int(rng.integers(1, 6))
    if label == 'normal':
      stem = f'IM-{115 + patient:04d}-0001' if patient % 8 < 4 else f'NORMAL2-IM-{381 + patient:04d}-0001'
      yield Exposure(f'chest_xray/{split}/NORMAL/{stem}.jpeg', patient, 0, age=age)
      continue
    for number in range(int(rng.integers(1, 4))):
      name = f'person{1000 + patient}_{label}_{2000 + 3 * patient + number}.jpeg'
      yield Exposure(f'chest_xray/{split}/PNEUMONIA/{name}', patient, number, (label,), age=age)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  path = root / exposure.path
  path.parent.mkdir(parents=True, exist_ok=True)
  mode = 'RGB' if (exposure.patient, exposure.number) == (1, 0) else 'L'
  Image.fromarray(radiograph.image).convert(mode).save(path, quality=92)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """Adds the quirks of the Kaggle archive: a second copy inside the first, resource forks and .DS_Store."""
  (root / 'chest_xray/.DS_Store').write_bytes(b'\x00\x00\x00\x01Bud1')
  for split, label in itertools.product(('train', 'val', 'test'), ('NORMAL', 'PNEUMONIA')):
    (root / 'chest_xray' / split / label).mkdir(parents=True, exist_ok=True)
  for exposure, _ in pairs[:8]:
    inner = exposure.path.replace('chest_xray/', 'chest_xray/chest_xray/', 1)
    (root / inner).parent.mkdir(parents=True, exist_ok=True)
    (root / inner).write_bytes((root / exposure.path).read_bytes())
    write_resource_fork(root / exposure.path.replace('chest_xray/', 'chest_xray/__MACOSX/', 1))


ARCHIVE = Archive(
  Vendor(gain=1.2, detail=0.9, reach=0.05, mark=0.055, shutter=0.35, photons=3e4, scatter=0.15, high=99.9),
  plan, render_child, save, write_tables,
)
