"""Panoramic dental X-rays in miniature."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from tfds_builders.phantoms.exposure import Exposure, Radiograph
from tfds_builders.phantoms.layout import Archive, save_png
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_jaw


def plan(seed: int) -> Iterator[Exposure]:
  for patient in itertools.count():
    yield Exposure(f'Images/{patient + 1}.png', patient, 0)


def save(root: pathlib.Path, exposure: Exposure, radiograph: Radiograph) -> None:
  """A segmentation file is the image with everything but the mandible blanked. Some files have three channels."""
  mode = 'RGB' if exposure.patient % 4 == 3 else 'L'
  save_png(root, exposure, radiograph, mode)
  for folder, mask in (('Segmentation1', 'mandible'), ('Segmentation2', 'mandible_second')):
    blanked = dataclasses.replace(
      radiograph, image=np.where(radiograph.masks[mask], radiograph.image, 0).astype(np.uint8)
    )
    save_png(root, dataclasses.replace(exposure, path=exposure.path.replace('Images', folder)), blanked, mode)


ARCHIVE = Archive(
  Vendor(gain=1.5, detail=0.9, reach=0.06, mark=0.07, shutter=0, photons=6e4, scatter=0.1),
  plan, render_jaw, save, lambda root, pairs: None,
)
