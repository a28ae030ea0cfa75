"""The COVID-19 Radiography Database in miniature."""

import itertools

import cv2
import numpy as np
from PIL import Image

from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_chest

CLASSES = {'Normal': (), 'COVID': ('Ground glass',), 'Lung_Opacity': ('Consolidation', 'Infiltration', 'Effusion'),
           'Viral Pneumonia': ('Interstitial',)}
MASK = 256 / 299  # sides of a mask over those of an image
UNMASKED = 9  # this patient's mask is missing


def plan(seed):
  counts = dict.fromkeys(CLASSES, 0)
  for patient in itertools.count():
    kind = ('Normal', 'COVID', 'Lung_Opacity', 'Normal', 'Viral Pneumonia', 'Lung_Opacity')[patient % 6]
    counts[kind] += 1
    rng, choice = dice(seed, 'covid plan', patient), CLASSES[kind]
    asked = (choice[int(rng.integers(len(choice)))],) if choice else ()
    path = f'COVID-19_Radiography_Dataset/{kind}/images/{kind}-{counts[kind]}.png'
    yield Shot(path, patient, 0, asked, age=int(rng.integers(18, 90)))


def save(root, shot, radiograph):
  """A few images are RGB; the masks are smaller than the images, and have three channels."""
  save_png(root, shot, radiograph, 'RGB' if shot.patient % 8 == 5 else 'L')
  if shot.patient == UNMASKED:
    return
  lungs = radiograph.masks['lung_left'] | radiograph.masks['lung_right']
  side = round(lungs.shape[0] * MASK)
  small = cv2.resize(lungs.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
  path = root / shot.path.replace('/images/', '/masks/')
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(small).convert('RGB').save(path, compress_level=1)


def index(root, pairs):
  base = root / 'COVID-19_Radiography_Dataset'
  for kind, folder in itertools.product(CLASSES, ('images', 'masks')):
    (base / kind / folder).mkdir(parents=True, exist_ok=True)
  for kind in CLASSES:
    (base / f'{kind}.metadata.xlsx').write_bytes(b'PK\x05\x06' + bytes(18))  # an empty zip file
  (base / 'README.md.txt').write_text('phantom\n')


ARCHIVE = Archive(
  Vendor(gain=1.25, gamma=0.95, detail=0.6, mark=0.05, shutter=0.3, photons=1.5e4, low=4, high=99.2, blur=0.8), plan,
  take_chest, save, index,
)
