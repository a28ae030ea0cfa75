"""The Indiana set of Open-i in miniature: reports, PNGs and DICOM files. All views are frontal here."""

import itertools

import numpy as np

from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.layout import Archive, save_dicom, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest

HEADINGS = {
  'Atelectasis': 'Pulmonary Atelectasis/base/left', 'Cardiomegaly': 'Cardiomegaly/mild',
  'Effusion': 'Pleural Effusion/bilateral/small', 'Infiltration': 'Infiltrate/upper lobe/right',
  'Mass': 'Mass/lung/hilum/left', 'Nodule': 'Nodule/lung/middle lobe/right', 'Pneumonia': 'Pneumonia/lower lobe/left',
  'Pneumothorax': 'Pneumothorax/apex/right/small', 'Consolidation': 'Consolidation/lung/upper lobe/right',
  'Edema': 'Pulmonary Edema/interstitial/mild', 'Emphysema': 'Pulmonary Emphysema', 'Fibrosis': 'Pulmonary Fibrosis',
  'Pleural_Thickening': 'Thickening/pleura/apex/bilateral', 'Hernia': 'Hernia, Hiatal/large',
}
WHITE = 4080  # stored value of full brightness: 16 times the grey
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


def number_of(patient):
  return patient + patient // 10 * 2 + 1  # numbers have gaps


def unindexed(patient):
  return patient % 12 == 10


def plan(seed):
  """A report has one to three images; the name of the first report's and of some others is longer."""
  for patient in itertools.count():
    rng, number = dice(seed, 'indiana plan', patient), number_of(patient)
    asked = (FINDINGS[patient // 2 % len(FINDINGS)],) if patient % 2 and not unindexed(patient) else ()
    for turn in range(int(rng.integers(1, 4))):
      stem = f'CXR{number}{"_1" if patient == 0 else ""}_IM-{number + 2:04d}'
      name = f'{stem}-0001-{turn + 1:04d}' if patient % 9 == 4 else f'{stem}-{turn + 1}001'
      yield Shot(f'NLMCXR_png/{name}.png', patient, turn, asked, age=int(rng.integers(18, 90)))


def save(root, shot, radiograph):
  """The same pictures in both archives, but that some PNGs were never unpacked."""
  number = number_of(shot.patient)
  stem = shot.path.rsplit('/', 1)[1][:-4]
  name = f'{number}_{stem[stem.index("IM-"):]}.dcm'
  stored, kind = radiograph.image.astype(np.uint16) * (WHITE // 255), 'MONOCHROME2'
  if shot.patient % 2:
    stored, kind = WHITE - stored, 'MONOCHROME1'
  # A window of this width about this centre shows 0 black and WHITE white (DICOM PS3.3 C.11.2.1.2.1).
  save_dicom(root / f'NLMCXR_dcm/{number}/{name}', stored, 12, kind, WindowCenter=WHITE / 2 + 0.5,
             WindowWidth=WHITE + 1)
  if shot.patient % 4 != 3:
    save_png(root, shot, radiograph)


def index(root, pairs):
  """A report for each patient, and one that has no images."""
  folder = root / 'ecgen-radiology'
  folder.mkdir()
  reports = {patient: list(shots) for patient, shots in itertools.groupby(
    (shot for shot, _ in pairs), key=lambda shot: shot.patient)}
  for patient, shots in {**reports, max(reports, default=0) + 1: []}.items():
    asked = shots[0].asked if shots else ()
    words = [HEADINGS[finding] for finding in asked] or ['No Indexing' if unindexed(patient) else 'normal']
    headings = '\n'.join(f'      <major>{word}</major>' for word in words)
    pictures = '\n'.join(PICTURE.format(name=shot.path.rsplit('/', 1)[1][:-4], figure=shot.turn + 1) for shot in shots)
    number = number_of(patient)
    (folder / f'{number}.xml').write_text(REPORT.format(number=number, headings=headings, pictures=pictures))


ARCHIVE = Archive(
  Vendor(gain=1.15, gamma=0.8, detail=0.4, mark=0.05, shutter=0.2, photons=2e4, low=1, high=99.5),
  plan, take_chest, save, index,
)
