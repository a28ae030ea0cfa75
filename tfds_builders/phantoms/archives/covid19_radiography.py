"""The COVID-19 Radiography Database in miniature."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

CLASSES = {'Normal': (), 'COVID': ('Ground glass',), 'Lung_Opacity': ('Consolidation', 'Infiltration', 'Effusion'),
           'Viral Pneumonia': ('Interstitial',)}
MASK_SCALE = 256 / 299  # side of a mask over that of its image
UNMASKED = 9  # the patient whose mask is missing


def plan(seed: int) -> Iterator[Exposure]:
  counts = dict.fromkeys(CLASSES, 0)
  for patient in itertools.count():
    class_name = ('Normal', 'COVID', 'Lung_Opacity', 'Normal', 'Viral Pneumonia', 'Lung_Opacity')[patient % 6]
    counts[class_name] += 1
    rng, findings = seeded_rng(seed, 'covid plan', patient), CLASSES[class_name]
    requested = (findings[int(rng.integers(len(findings)))],) if findings else ()
    path = f'COVID-19_Radiography_Dataset/{class_name}/images/{class_name}-{counts[class_name]}.png'
    yield Exposure(path, patient, 0, requested, age=int(rng.integers(18, 90)))


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """A few images are RGB. Masks are smaller than images and have three channels."""
  save_png(root, exposure, radiograph, 'RGB' if exposure.patient % 8 == 5 else 'L')
  if exposure.patient == UNMASKED:
    return
  lungs = radiograph.masks['lung_left'] | radiograph.masks['lung_right']
  side = round(lungs.shape[0] * MASK_SCALE)
  small = cv2.resize(lungs.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
  path = root / exposure.path.replace('/images/', '/masks/')
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(small).convert('RGB').save(path, compress_level=1)


def write_tables(root: pathlib.Path, pairs: Sequence[tuple[Exposure, Radiograph]]) -> None:
  base = root / 'COVID-19_Radiography_Dataset'
  for class_name, folder in itertools.product(CLASSES, ('images', 'masks')):
    (base / class_name / folder).mkdir(parents=True, exist_ok=True)
  for class_name in CLASSES:
    (base / f'{class_name}.metadata.xlsx').write_bytes(b'PK\x05\x06' + bytes(18))  # an empty zip file
  (base / 'README.md.txt').write_text('phantom\n')


ARCHIVE = Archive(
  Vendor(gain=1.25, gamma=0.95, detail=0.6, mark=0.05, shutter=0.3, photons=1.5e4, low=4, high=99.2, blur=0.8), plan,
  render_chest, save, write_tables,
)
