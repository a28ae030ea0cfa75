"""RSNA bone age in miniature."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_hand


def plan(seed: int) -> Iterator[Exposure]:
  for patient in itertools.count():
    test = patient % 9 == 8
    folder = 'boneage-test-dataset' if test else 'boneage-training-dataset'
    number = 4360 + patient // 9 if test else 5000 + patient if patient > 2000 else 1377 + patient
    yield Exposure(f'{folder}/{folder}/{number}.png', patient, 0)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  train = [(exposure.stem, int(radiograph.value or 0), radiograph.sex == 'M')
           for exposure, radiograph in pairs if 'training' in exposure.path]
  test = [(exposure.stem, radiograph.sex) for exposure, radiograph in pairs if 'test' in exposure.path]
  write_rows(root / 'boneage-training-dataset.csv', 'id,boneage,male', train)
  write_rows(root / 'boneage-test-dataset.csv', 'Case ID,Sex', test)
  for folder in ('boneage-training-dataset', 'boneage-test-dataset'):
    (root / folder / folder).mkdir(parents=True, exist_ok=True)


def render_hand_of_any_size(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """The archive has many image sizes: 0.8 to 1.2 of the given size."""
  zoom = seeded_rng(seed, name, exposure.patient, 'size').uniform(0.8, 1.2)
  return render_hand(seed, name, exposure, round(size * zoom), vendor)


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.75, detail=0.4, mark=0.06, shutter=0.35, low=6, high=99.3, blur=0.5),
  plan, render_hand_of_any_size, save_png, write_tables,
)
