"""Takes the radiograph of a scene: pose of the patient, lead marker, collimation, exposure and display."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from tfds_builders.phantoms import variation
from tfds_builders.phantoms.physics import ATTENUATION, Vendor, develop, expose, integrate
from tfds_builders.phantoms.scene import MARGIN, Scene, clouds


def pose(
    rng: np.random.Generator, rotation: float = 4.0, shift: float = 0.03, zoom: float = 0.06,
    mirror: bool = False) -> dict[str, Any]:
  """Samples the patient's pose: rotation in degrees, shift and zoom as fractions of the image."""
  return dict(rotation=rng.normal(0, rotation / 2), dx=rng.normal(0, shift / 2), dy=rng.normal(0, shift / 2),
              zoom=1 + rng.uniform(-zoom, zoom), mirror=mirror)


def sampling_maps(
    scene: Scene, shape: tuple[int, int], place: Mapping[str, Any], body_rng: np.random.Generator,
    wobble: float = 0.012) -> tuple[np.ndarray, np.ndarray]:
  """The scene position that each pixel of the image shows, as two (H, W) maps for cv2.remap.

  A smooth distortion from the patient's own generator gives each patient a different shape, the same in every image.
  """
  rows, columns = shape
  step = scene.shape[1] / MARGIN / columns / place['zoom']
  x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2 - place['dx'] * columns) * step
  y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5 - rows / 2 - place['dy'] * rows) * step
  if 'stretch' in place:
    x = x * np.float32(1 / place['stretch'])
  if place['mirror']:
    x = -x
  cos, sin = np.cos(np.deg2rad(place['rotation'])), np.sin(np.deg2rad(place['rotation']))
  map_x = (x * cos + y * sin + scene.shape[1] / 2 - 0.5).astype(np.float32)
  map_y = (y * cos - x * sin + scene.shape[0] / 2 - 0.5).astype(np.float32)
  reach = np.float32(wobble * scene.shape[1])
  coarse_x, coarse_y = (cv2.resize(m, (33, 33)) / 8 for m in (map_x, map_y))
  for target in (map_x, map_y):
    bend = clouds(body_rng, (scene.shape[0] // 8 + 1, scene.shape[1] // 8 + 1), 3, 1) * reach
    sampled = cv2.remap(bend, coarse_x, coarse_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    target += cv2.resize(sampled, (columns, rows))
  return cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)


def add_marker(lines_HW: np.ndarray, vendor: Vendor, rng: np.random.Generator, side: str) -> np.ndarray:
  """Adds a lead L or R near the upper edge, on its side. The patient's right is on the left of the image."""
  rows, columns = lines_HW.shape
  size = vendor.mark * rows * rng.uniform(0.8, 1.2)
  stamp = np.zeros(lines_HW.shape, np.uint8)
  x = columns * (rng.uniform(0.03, 0.09) if side == 'R' else rng.uniform(0.87, 0.93))
  y = rows * rng.uniform(0.06, 0.2) + size
  thick = max(1, round(size / 7))
  cv2.putText(stamp, side, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size / 22, 255, thick, cv2.LINE_AA)
  return lines_HW + stamp.astype(np.float32) * np.float32(ATTENUATION['metal'] * 0.6 / 255)


def collimate(image_HW: np.ndarray, vendor: Vendor, rng: np.random.Generator) -> np.ndarray:
  """Blanks the border outside the collimated field, which is slightly rotated."""
  rows, columns = image_HW.shape
  field = np.zeros(image_HW.shape, np.uint8)
  inset = rng.uniform(-0.03, 0.05 + 0.08 * vendor.variation, 4)
  x0, x1 = inset[0] * columns, (1 - inset[1]) * columns
  y0, y1 = inset[2] * rows, (1 - inset[3]) * rows
  lean = np.tan(np.deg2rad(rng.normal(0, 0.8 + 2 * vendor.variation)))
  corners = [(x, y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
  corners = [(x - lean * (y - rows / 2), y + lean * (x - columns / 2)) for x, y in corners]
  cv2.fillPoly(field, [np.round(np.array(corners) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
  weight = field.astype(np.float32) / 255
  return (image_HW * weight + max(vendor.rim, 1) * (1 - weight)).astype(np.uint8)


def acquire(
    scene: Scene, shape: tuple[int, int], place: Mapping[str, Any], vendor: Vendor, body_rng: np.random.Generator,
    rng: np.random.Generator, masks: Mapping[str, np.ndarray], depth: float = 1.0,
    wobble: float = 0.012) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """The radiograph of a scene, and its masks in the same pose.

  Args:
    scene: tissue thickness.
    shape: (H, W) of the image.
    place: from `pose`.
    vendor: detector and display. Its `variation` changes pose, technique and beam, and adds objects and letters.
    body_rng: the patient's generator, for the distortion.
    rng: the exposure's generator.
    masks: {name: bool array of the scene's shape}.
    depth: scales all lengths along the ray. A child is drawn at an adult's size, but is thinner.
    wobble: size of the distortion, as a fraction of the scene's width.

  Returns:
    (H, W) uint8, {name: (H, W) bool}
  """
  v, attenuation = vendor.variation, ATTENUATION
  if v:
    place, attenuation = variation.vary_pose(place, rng, v), variation.vary_beam(rng, v)
    vendor = variation.vary_technique(vendor, rng)
    depth *= float(np.exp(v * rng.normal(0, 0.1)))
  maps = sampling_maps(scene, shape, place, body_rng, wobble)
  whole = integrate(scene, attenuation) * np.float32(depth)
  lines = cv2.remap(whole, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
  if v:
    lines = variation.add_objects(lines, rng, v) - np.log(variation.tilt_exposure(shape, rng, v))
  if vendor.mark and rng.random() < 0.85:
    lines = add_marker(lines, vendor, rng, 'LR'[rng.integers(2)])
  image = develop(expose(lines, vendor, rng), vendor, rng)
  if rng.random() < vendor.shutter:
    image = collimate(image, vendor, rng)
  if v:
    image = variation.add_letters(image, rng, v)
  visible = {name: cv2.remap(mask.astype(np.uint8) * 255, *maps, cv2.INTER_LINEAR) > 127
             for name, mask in masks.items()}
  return image, visible
