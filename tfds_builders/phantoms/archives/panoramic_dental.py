"""The panoramic radiographs with the mandible outlined, in miniature."""

import dataclasses
import itertools

import numpy as np

from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot
from tfds_builders.phantoms.studies import take_jaw


def plan(seed):
  for patient in itertools.count():
    yield Shot(f'Images/{patient + 1}.png', patient, 0)


def save(root, shot, radiograph):
  """An expert's file is the picture with everything but the mandible blanked; some files have three channels."""
  mode = 'RGB' if shot.patient % 4 == 3 else 'L'
  save_png(root, shot, radiograph, mode)
  for folder, mask in (('Segmentation1', 'mandible'), ('Segmentation2', 'mandible_second')):
    blanked = dataclasses.replace(
      radiograph, image=np.where(radiograph.masks[mask], radiograph.image, 0).astype(np.uint8)
    )
    save_png(root, dataclasses.replace(shot, path=shot.path.replace('Images', folder)), blanked, mode)


ARCHIVE = Archive(
  Vendor(gain=1.5, detail=0.9, reach=0.06, mark=0.07, shutter=0, photons=6e4, scatter=0.1),
  plan, take_jaw, save, lambda root, pairs: None,
)
