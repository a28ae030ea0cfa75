"""Indiana University (Open-i) in miniature: reports, PNGs and DICOM files. All views are frontal."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_dicom, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

HEADINGS = {
  'Atelectasis': 'Pulmonary Atelectasis/base/left', 'Cardiomegaly': 'Cardiomegaly/mild',
  'Effusion': 'Pleural Effusion/bilateral/small', 'Infiltration': 'Infiltrate/upper lobe/right',
  'Mass': 'Mass/lung/hilum/left', 'Nodule': 'Nodule/lung/middle lobe/right', 'Pneumonia': 'Pneumonia/lower lobe/left',
  'Pneumothorax': 'Pneumothorax/apex/right/small', 'Consolidation': 'Consolidation/lung/upper lobe/right',
  'Edema': 'Pulmonary Edema/interstitial/mild', 'Emphysema': 'Pulmonary Emphysema', 'Fibrosis': 'Pulmonary Fibrosis',
  'Pleural_Thickening': 'Thickening/pleura/apex/bilateral', 'Hernia': 'Hernia, Hiatal/large',
}
WHITE = 4080  # stored value of white: 16 x 255
REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="CXR{number}"/>
   <pmcId id="{number}"/>
   <licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
            <AbstractText Label="COMPARISON">None.</AbstractText>
            <AbstractText Label="IMPRESSION">Phantom radiograph, computed. XXXX.</AbstractText>
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
{headings}
   </MeSH>
{pictures}
</eCitation>
"""
PICTURE = """   <parentImage id="{name}">
      <figureId>F{figure}</figureId>
      <caption>Xray Chest PA and Lateral</caption>
   </parentImage>"""


def report_number(patient: int) -> int:
  return patient + patient // 10 * 2 + 1  # with gaps, as in the archive


def is_unindexed(patient: int) -> bool:
  """Whether nobody gave the report any headings."""
  return patient % 12 == 10


def plan(seed: int) -> Iterator[Exposure]:
  """A report has one to three images. The first report and some others have longer image names."""
  for patient in itertools.count():
    rng, number = seeded_rng(seed, 'indiana plan', patient), report_number(patient)
    requested = (FINDINGS[patient // 2 % len(FINDINGS)],) if patient % 2 and not is_unindexed(patient) else ()
    for image in range(int(rng.integers(1, 4))):
      stem = f'CXR{number}{"_1" if patient == 0 else ""}_IM-{number + 2:04d}'
      name = f'{stem}-0001-{image + 1:04d}' if patient % 9 == 4 else f'{stem}-{image + 1}001'
      yield Exposure(f'NLMCXR_png/{name}.png', patient, image, requested, age=int(rng.integers(18, 90)))


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """Writes each image as DICOM, and most as PNG too: some PNGs are missing, as if never unpacked."""
  number = report_number(exposure.patient)
  stem = exposure.stem
  name = f'{number}_{stem[stem.index("IM-"):]}.dcm'
  stored, photometric = radiograph.image.astype(np.uint16) * (WHITE // 255), 'MONOCHROME2'
  if exposure.patient % 2:
    stored, photometric = WHITE - stored, 'MONOCHROME1'
  # This window displays 0 as black and WHITE as white (DICOM PS3.3 C.11.2.1.2.1).
  save_dicom(root / f'NLMCXR_dcm/{number}/{name}', stored, 12, photometric, WindowCenter=WHITE / 2 + 0.5,
             WindowWidth=WHITE + 1)
  if exposure.patient % 4 != 3:
    save_png(root, exposure, radiograph)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  """A report per patient, and one without images."""
  folder = root / 'ecgen-radiology'
  folder.mkdir()
  reports = {patient: list(exposures) for patient, exposures in itertools.groupby(
    (exposure for exposure, _ in pairs), key=lambda exposure: exposure.patient)}
  for patient, exposures in {**reports, max(reports, default=0) + 1: []}.items():
    requested = exposures[0].requested if exposures else ()
    words = [HEADINGS[finding] for finding in requested] or ['No Indexing' if is_unindexed(patient) else 'normal']
    headings = '\n'.join(f'      <major>{word}</major>' for word in words)
    pictures = '\n'.join(
      PICTURE.format(name=exposure.stem, figure=exposure.number + 1) for exposure in exposures)
    number = report_number(patient)
    (folder / f'{number}.xml').write_text(REPORT.format(number=number, headings=headings, pictures=pictures))


ARCHIVE = Archive(
  Vendor(gain=1.15, gamma=0.8, detail=0.4, mark=0.05, shutter=0.2, photons=2e4, low=1, high=99.5),
  plan, render_chest, save, write_tables,
)
