"""How radiographs of one archive differ for reasons that no label knows: technique, beam, position, objects, breath.

Every function here takes `variation`, from 0 to 1, or a vendor that has it. At 0 an archive is as uniform as one room
with one radiographer: `acquire` then calls nothing of this file. At 1 the spread is that of an archive collected over
years from many rooms. The size of each effect is by eye, except where a source is named. Nothing here depends on the
label, and masks and boxes follow the image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from tfds_builders.phantoms.physics import ATTENUATION, Vendor
from tfds_builders.phantoms.scene import MARGIN, Scene, View

# Attenuation in 1/cm at these effective energies in keV: water, and cortical bone of 1.92 g/cm3 (NIST, Hubbell and
# Seltzer, tables of X-ray mass attenuation coefficients).
ENERGIES = (40, 50, 60, 80)
WATER = (0.2683, 0.2269, 0.2059, 0.1837)
BONE = (1.278, 0.8145, 0.6044, 0.4280)
REFERENCE = 60.0  # keV, the energy of `physics.ATTENUATION`
LETTERS = 'ABDEHKLMNPRSTX0123456789'


def vary_technique(vendor: Vendor, rng: np.random.Generator) -> Vendor:
  """One exposure's technique: the vendor's values, each multiplied by a log-normal factor.

  Dose (automatic exposure control and its errors), scatter (with and without an antiscatter grid), blur (focal spot,
  motion), strength and reach of edge enhancement, steepness and exponent of the display curve (the preset that was
  chosen), and the window: a wrong region of interest clips up to 8 % of the dark and 4 % of the bright pixels.
  """
  v = vendor.variation
  dose, scatter, blur, detail, reach, gain, gamma = np.exp(v * rng.normal(0, (0.8, 0.5, 0.35, 0.6, 0.4, 0.4, 0.3)))
  low, high = v * rng.uniform(0, (8, 4))
  return dataclasses.replace(
    vendor, photons=vendor.photons * dose, scatter=vendor.scatter * scatter, blur=vendor.blur * blur,
    detail=vendor.detail * detail, reach=vendor.reach * reach, gain=vendor.gain * gain, gamma=vendor.gamma * gamma,
    low=vendor.low + low, high=vendor.high - high, shutter=vendor.shutter + v * (0.8 - vendor.shutter),
    rim=255 if rng.random() < 0.15 * v else int(v * rng.integers(0, 60)) + vendor.rim)


def vary_beam(rng: np.random.Generator, variation: float) -> dict[str, float]:
  """Attenuation in 1/cm of each tissue at the energy of this exposure, 45 to 80 keV (tube voltage and filter).

  At low energies bone attenuates 3.9 times as much as soft tissue, at high ones 2.3 times: the contrast of bone against
  lung findings changes, which no brightness or contrast of the finished image can undo.
  """
  keV = REFERENCE * (rng.uniform(45, 80) / REFERENCE) ** variation
  water, bone = (np.exp(np.interp(np.log([keV, REFERENCE]), np.log(ENERGIES), np.log(table)))
                 for table in (WATER, BONE))
  factors = dict.fromkeys(ATTENUATION, float(water[0] / water[1])) | {'bone': float(bone[0] / bone[1]), 'metal': 1.0}
  return {tissue: value * factors[tissue] for tissue, value in ATTENUATION.items()}


def vary_pose(place: Mapping[str, Any], rng: np.random.Generator, variation: float) -> dict[str, Any]:
  """Adds rotation, shift, magnification and an oblique projection, which makes the patient narrower or wider.

  The patient is magnified more than reduced, so that the scene still fills most of the image.
  """
  dx, dy = np.clip(rng.normal(0, 0.045 * variation, 2), -0.09, 0.09)
  return dict(
    place, rotation=place['rotation'] + rng.normal(0, 6 * variation), dx=place['dx'] + dx, dy=place['dy'] + dy,
    zoom=place['zoom'] * float(np.exp(variation * rng.uniform(-0.05, 0.2))),
    stretch=float(np.exp(variation * rng.normal(0, 0.07))))


def vary_chest(body: Mapping[str, Any], rng: np.random.Generator, variation: float) -> dict[str, Any]:
  """A chest at the moment of the exposure: depth of breath, rotation about the long axis, and the heart's size.

  Without a deep breath the diaphragm is up to 3 cm higher and the lung is denser. The heart appears up to 8 % larger
  where the tube is near (a supine patient), which keeps a normal heart below 0.53 of the chest. A child's thymus widens
  the upper mediastinum: it looks like a mass or a consolidated lobe, and is normal.
  """
  up = float(np.clip(variation * rng.normal(0.4, 1.0), -1.2, 3.0))
  varied = dict(
    body, dome=[d - up for d in body['dome']], air=body['air'] * (1 - 0.04 * max(up, 0)),
    ctr=body['ctr'] * (1 + 0.08 * variation * rng.random()), twist=body['twist'] + variation * rng.normal(0, 0.5),
    shoulder=body['shoulder'] + variation * rng.normal(0, 0.8))
  if body['child']:
    varied['knob'] = body['knob'] + 2.6 * variation * body['thymus']
  return varied


def tilt_exposure(
    shape: tuple[int, int], rng: np.random.Generator, variation: float) -> np.ndarray:
  """(H, W) factor on the exposure that falls to one side: a grid that is off centre, or a tilted cassette.

  The edges of the image receive up to 35 % more and less than the middle.
  """
  across, along = variation * rng.uniform(-0.35, 0.35, 2)
  rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
  return np.float32(1) + 0.7 * np.float32(along) * rows[:, None] + np.float32(across) * columns


def add_objects(lines_HW: np.ndarray, rng: np.random.Generator, variation: float) -> np.ndarray:
  """Adds what lies on or under a patient: buttons, electrodes, rings, leads and tubes, zips. They are independent of
  the label.

  The number is Poisson with mean 1.5. An object attenuates the beam by a factor between 1.2 and 5.
  """
  rows, columns = lines_HW.shape
  extent = min(rows, columns)
  for _ in range(rng.poisson(1.5 * variation)):
    stamp = np.zeros(lines_HW.shape, np.uint8)
    x, y = (round(16 * v) for v in rng.uniform(0.02, 0.98, 2) * (columns, rows))
    thick = max(1, round(0.014 * extent * rng.uniform(0.5, 1.5)))
    shape = rng.random()
    if shape < 0.4:  # a disc or a ring
      radius = round(16 * extent * rng.uniform(0.01, 0.03))
      cv2.circle(stamp, (x, y), radius, 255, cv2.FILLED if shape < 0.25 else thick, cv2.LINE_AA, 4)
    else:  # a lead or tube: a quadratic Bezier curve
      bend, end = (x, y) + 16 * extent * rng.normal(0, 0.3, (2, 2))
      t = np.linspace(0, 1, 9)[:, None]
      path = (x, y) + 2 * t * (1 - t) * (bend - (x, y)) + t * t * (end - (x, y))
      cv2.polylines(stamp, [np.round(path).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4)
    lines_HW = lines_HW + stamp * np.float32(rng.uniform(0.2, 1.6) / 255)
  return lines_HW


def add_letters(image_HW: np.ndarray, rng: np.random.Generator, variation: float) -> np.ndarray:
  """Burns a word of random letters and digits into a corner of every second image, as some stations do."""
  if rng.random() < 0.5 * variation:
    rows, columns = image_HW.shape
    word = ''.join(LETTERS[i] for i in rng.integers(0, len(LETTERS), rng.integers(3, 9)))
    size = rng.uniform(0.04, 0.07) * rows
    x, y = rng.choice([0.03, 0.55]) * columns, rng.choice([0.1, 0.96]) * rows
    image_HW = np.ascontiguousarray(image_HW)
    cv2.putText(image_HW, word, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size / 22, int(rng.integers(140, 256)),
                max(1, round(size / 8)), cv2.LINE_AA)
  return image_HW


def aim_at_site(
    scene: Scene, regions: Mapping[str, np.ndarray], rng: np.random.Generator, variation: float) -> View:
  """The field of a study that is coned down to the site of pain: at 1 it is 0.6 times as wide as the whole part.

  Its centre is near the middle of `regions`, the bool arrays of a scene that shows the whole part.
  """
  whole = scene.shape[1] / scene.scale / MARGIN
  rows, columns = np.nonzero(np.logical_or.reduce(list(regions.values())))
  middle = np.array([scene.x_W[0] + scene.x_W[-1], scene.y_H[0] + scene.y_H[-1]]) / 2
  site = np.array([scene.x_W[columns].mean(), scene.y_H[rows].mean()]) if len(rows) else middle
  x, y = middle + variation * (site - middle + rng.normal(0, 0.05 * whole, 2))
  return (float(x), float(y)), float(whole * (1 - 0.4 * variation))


def sample_months(rng: np.random.Generator, variation: float) -> float:
  """Skeletal age in months of a patient with an injury: some are children, whose growth plates are open and normal.

  The same dark lines are the sign of a bone age in another archive, and resemble a fracture.
  """
  return float(rng.uniform(60, 200)) if rng.random() < 0.4 * variation else 240.0
