"""Shenzhen in miniature, with the separately published lung masks."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.tuberculosis import choose_findings, render_lungs, write_reading


def plan(seed: int) -> Iterator[Exposure]:
  """Numbers 1 to 326 are normal, 327 to 662 have tuberculosis."""
  for patient in itertools.count():
    ill, age = patient % 2, int(seeded_rng(seed, 'shenzhen plan', patient).integers(15, 80))
    name = f'CHNCXR_{(327 if ill else 1) + patient // 2:04d}_{ill}'
    requested = choose_findings(seed, 'shenzhen', patient, ill)
    yield Exposure(f'ChinaSet_AllFiles/CXR_png/{name}.png', patient, 0, requested, age=age)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """Images are RGB or have a palette, but show grey. One patient in seven has no mask."""
  save_png(root, exposure, radiograph, 'P' if exposure.patient % 3 == 1 else 'RGB')
  if exposure.patient % 7 != 5:
    stem = exposure.stem
    save_mask(root / f'mask/mask/{stem}_mask.png', radiograph, 'lung_left', 'lung_right')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  folder = root / 'ChinaSet_AllFiles/ClinicalReadings'
  folder.mkdir()
  for exposure, radiograph in pairs:
    finding = 'secondary PTB in the upper field' if radiograph.findings else 'normal'
    reading = write_reading(radiograph.sex, radiograph.age, exposure.patient) + finding
    (folder / f'{exposure.stem}.txt').write_text(reading)
  (root / 'ChinaSet_AllFiles/NLM-ChinaCXRSet-ReadMe.docx').write_bytes(b'PK')


ARCHIVE = Archive(
  Vendor(gain=1.25, gamma=0.8, detail=0.6, reach=0.05, mark=0.05, shutter=0.15, photons=4e4, low=0.5, high=99.8),
  plan, render_lungs, save, write_tables,
)
