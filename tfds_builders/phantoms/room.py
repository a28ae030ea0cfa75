"""The X-ray room: positions the patient, sets the lead letter and the collimator, and exposes the film."""

import cv2
import numpy as np

from tfds_builders.phantoms.film import clouds
from tfds_builders.phantoms.physics import ATTENUATION, develop, expose, integrate

MARGIN = 1.16  # the film is drawn this much larger than the picture, so that a turned patient still fills it


def pose(rng, turn=4.0, shift=0.03, zoom=0.06, mirror=False):
  """A position on the table: degrees, fractions of the frame; returned as plain numbers for `aim`."""
  return dict(turn=rng.normal(0, turn / 2), dx=rng.normal(0, shift / 2), dy=rng.normal(0, shift / 2),
              zoom=1 + rng.uniform(-zoom, zoom), mirror=mirror)


def aim(film, shape, place, body_rng, wobble=0.012):
  """Where on the film each pixel of the picture looks: two (H, W) maps.

  A smooth distortion drawn from the patient's own dice makes no two patients the same shape, and one patient always
  the same.
  """
  rows, columns = shape
  step = film.shape[1] / MARGIN / columns / place['zoom']
  x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2 - place['dx'] * columns) * step
  y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5 - rows / 2 - place['dy'] * rows) * step
  if place['mirror']:
    x = -x
  cos, sin = np.cos(np.deg2rad(place['turn'])), np.sin(np.deg2rad(place['turn']))
  map_x = (x * cos + y * sin + film.shape[1] / 2 - 0.5).astype(np.float32)
  map_y = (y * cos - x * sin + film.shape[0] / 2 - 0.5).astype(np.float32)
  reach = np.float32(wobble * film.shape[1])
  few = [cv2.resize(m, (33, 33)) / 8 for m in (map_x, map_y)]
  for target in (map_x, map_y):
    bend = clouds(body_rng, (film.shape[0] // 8 + 1, film.shape[1] // 8 + 1), 3, 1) * reach
    target += cv2.resize(cv2.remap(bend, *few, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), (columns, rows))
  return cv2.convertMaps(map_x, map_y, cv2.CV_16SC2)


def letter(lines_HW, vendor, rng, side):
  """A lead L or R near the upper edge, on the side it names (the patient's right is on the left of the picture)."""
  rows, columns = lines_HW.shape
  size = vendor.mark * rows * rng.uniform(0.8, 1.2)
  stamp = np.zeros(lines_HW.shape, np.uint8)
  x = columns * (rng.uniform(0.03, 0.09) if side == 'R' else rng.uniform(0.87, 0.93))
  y = rows * rng.uniform(0.06, 0.2) + size
  thick = max(1, round(size / 7))
  cv2.putText(stamp, side, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size / 22, 255, thick, cv2.LINE_AA)
  return lines_HW + stamp.astype(np.float32) * np.float32(ATTENUATION['metal'] * 0.6 / 255)


def collimate(image_HW, vendor, rng):
  """The shuttered border outside the field, straight and slightly turned."""
  rows, columns = image_HW.shape
  field = np.zeros(image_HW.shape, np.uint8)
  inset = rng.uniform(-0.03, 0.05, 4)
  x0, x1 = inset[0] * columns, (1 - inset[1]) * columns
  y0, y1 = inset[2] * rows, (1 - inset[3]) * rows
  lean = np.tan(np.deg2rad(rng.normal(0, 0.8)))
  corners = [(x, y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
  corners = [(x - lean * (y - rows / 2), y + lean * (x - columns / 2)) for x, y in corners]
  cv2.fillPoly(field, [np.round(np.array(corners) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
  weight = field.astype(np.float32) / 255
  return (image_HW * weight + max(vendor.rim, 1) * (1 - weight)).astype(np.uint8)


def shoot(film, shape, place, vendor, body_rng, rng, masks, depth=1.0, wobble=0.012):
  """The picture of what lies on the film, and its masks seen from the same place.

  masks: name -> (film height, film width) bool.  depth scales all lengths along the ray (a child
  is drawn at an adult's size and is thinner).
  """
  maps = aim(film, shape, place, body_rng, wobble)
  lines = cv2.remap(integrate(film) * np.float32(depth), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
  if vendor.mark and rng.random() < 0.85:
    lines = letter(lines, vendor, rng, 'LR'[rng.integers(2)])
  image = develop(expose(lines, vendor, rng), vendor, rng)
  if rng.random() < vendor.shutter:
    image = collimate(image, vendor, rng)
  seen = {name: cv2.remap(mask.astype(np.uint8) * 255, *maps, cv2.INTER_LINEAR) > 127 for name, mask in masks.items()}
  return image, seen
