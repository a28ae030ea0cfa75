"""Montgomery County in miniature, with a mask per lung."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_mask, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.tuberculosis import choose_findings, render_lungs


def plan(seed: int) -> Iterator[Exposure]:
  """The numbers in the names have gaps."""
  for patient in itertools.count():
    ill, age = int(patient % 7 in (1, 4, 6)), int(seeded_rng(seed, 'montgomery plan', patient).integers(4, 90))
    name = f'MCUCXR_{patient + patient // 6 * 2 + 1:04d}_{ill}'
    requested = choose_findings(seed, 'montgomery', patient, ill)
    yield Exposure(f'MontgomerySet/CXR_png/{name}.png', patient, 0, requested, age=age)


def render_view(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """The aspect ratio is that of 4020 x 4892, portrait or landscape."""
  short = round(size * 4020 / 4892)
  return render_lungs(seed, name, exposure, size, vendor, (size, short) if exposure.patient % 3 == 1 else (short, size))


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  save_png(root, exposure, radiograph)
  for side in ('left', 'right'):
    save_mask(root / f'MontgomerySet/ManualMask/{side}Mask/{exposure.file_name}', radiograph, f'lung_{side}')


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  folder = root / 'MontgomerySet/ClinicalReadings'
  folder.mkdir()
  for exposure, radiograph in pairs:
    finding = 'Cavitary infiltrate in the upper lobe' if radiograph.findings else 'normal'
    reading = f"Patient's Sex: {radiograph.sex} \nPatient's Age: {radiograph.age:03d}Y\n{finding}"
    (folder / f'{exposure.stem}.txt').write_text(reading)


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.9, detail=0.3, mark=0.05, shutter=0.4, photons=2.5e4, low=1, high=99.7),
  plan, render_view, save, write_tables,
)
