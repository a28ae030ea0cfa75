"""Findings that replace the lung's air by denser tissue: nodules, infiltrates, lobes and reticular patterns."""

import numpy as np

from tfds_builders.phantoms.lung_findings import choose_lung, cloudy_patch, mesh, pick_spot, replace_air
from tfds_builders.phantoms.scene import clouds, ellipsoid
from tfds_builders.phantoms.thorax import Chest

BOTH = (('right', -1), ('left', 1))


def paint_nodule(
    chest: Chest, rng: np.random.Generator, severity: float, radius: float | None = None, lobes: int = 1) -> np.ndarray:
  """Nodule: a round spot of soft tissue, less than 3 cm across."""
  name, _ = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, rng, name)
  radius = radius or 0.8 + 0.55 * severity
  lung, region = chest.lung[name], np.zeros(chest.scene.shape, bool)
  for _ in range(lobes):
    dx, dy = rng.normal(0, 0.35 * radius * (lobes > 1), 2)
    a, b = radius * rng.uniform(0.85, 1.1), radius * rng.uniform(0.8, 1)
    window, depth = ellipsoid(chest.scene, x + dx, y + dy, a, b, radius * 1.6, rng.uniform(0, 3))
    lung[window] -= np.minimum(lung[window], depth)
    region[window] |= depth > 0
  return region & (chest.full[name] > 0.5)


def paint_mass(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Mass: a lobulated opacity of more than 3 cm."""
  return paint_nodule(chest, rng, severity, radius=1.9 + 1.0 * severity, lobes=4)


def paint_infiltration(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Infiltration: ill-defined, patchy haze in the middle and lower zone of one lung."""
  name, _ = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, rng, name, -2, 5)
  cover = cloudy_patch(chest, x, y, 4.2, 5.0, 1.1, 0.35, rng)
  mottle = np.clip(0.45 + 0.6 * clouds(rng, chest.scene.shape, 22, 2), 0, 1)
  return replace_air(chest, name, cover * mottle, 0.42 + 0.25 * severity)


def paint_pneumonia(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Pneumonia: a segment filled with exudate, dense and cloudy, with air bronchograms."""
  name, side = choose_lung(chest, dense=True)
  x, y = pick_spot(chest, rng, name, -6, 6)
  cover = cloudy_patch(chest, x, y, 3.6 + severity, 3.0 + severity, 0.5, 0.3, rng, rng.uniform(0, 3))
  return replace_air(chest, name, cover * air_bronchogram(chest, side, rng), 0.62 + 0.2 * severity)


def paint_consolidation(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Consolidation: a whole lobe up to its fissure, homogeneous, with one straight border."""
  name, side = choose_lung(chest, dense=True)
  upper = rng.random() < 0.5
  fissure = rng.uniform(-3.5, 0) if upper else rng.uniform(-1, 2.5)
  level = fissure + 0.12 * side * chest.scene.x_W[None] * rng.uniform(-1, 1)
  below = (chest.scene.y_H[:, None] - level) * (-1 if upper else 1)
  cover = np.clip(below / 0.5, 0, 1) * np.clip(0.85 + 0.2 * clouds(rng, chest.scene.shape, 6, 2), 0, 1)
  return replace_air(chest, name, cover * air_bronchogram(chest, side, rng), 0.62 + 0.22 * severity)


def air_bronchogram(chest: Chest, side: int, rng: np.random.Generator) -> np.ndarray:
  """Factor on an opacity: 1, but less along the open bronchi, which show as dark branches."""
  count = 9
  x, y, angle = np.full(count, side * 3.0), rng.uniform(-3, 4, count), rng.uniform(-0.9, 1.2, count)
  bend, long = angle + rng.uniform(-0.5, 0.5, count), rng.uniform(2, 4, count)
  x2, y2 = x + side * long * np.cos(angle), y + long * np.sin(angle)
  x, y, angle, long = np.append(x, x2), np.append(y, y2), np.append(angle, bend), np.append(long, long * 0.8)
  tree = mesh(chest, x, y, angle, side * long * np.where(np.cos(angle) > 0, 1, -1), 0.24)
  return 1 - np.minimum(tree / 0.24, 1) * np.float32(0.28)


def paint_edema(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Edema: fluid around both hila in the shape of bat wings, and thickened septa at the periphery."""
  region, count = np.zeros(chest.scene.shape, bool), 30
  for name, side in BOTH:
    lung = chest.lung[name]
    cover = cloudy_patch(chest, side * 5.0, 0.6, 4.4, 6.0, 0.9, 0.35, rng)
    cover *= np.clip(0.75 + 0.35 * clouds(rng, chest.scene.shape, 18, 2), 0, 1)
    region |= replace_air(chest, name, cover, 0.45 + 0.25 * severity)
    x, y = side * rng.uniform(0.75, 0.97, count) * chest.body['half'], rng.uniform(0, 9, count)
    lung -= np.minimum(lung, 4 * mesh(chest, x, y, rng.normal(0, 0.15, count), -side * np.full(count, 1.4), 0.13))
  return region


def paint_fibrosis(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Fibrosis: a coarse net of scars with small clear holes, at the bases or the apices."""
  high, count = rng.random() < 0.4, 130
  region = np.zeros(chest.scene.shape, bool)
  for name, side in BOTH:
    x, y, lung = side * 7.5, (-7.5 if high else 6.0), chest.lung[name]
    cover = cloudy_patch(chest, x, y, 4.5, 3.8, 0.5, 0.25, rng)
    net = mesh(chest, x + rng.uniform(-5, 5, count), y + rng.uniform(-5, 5, count), rng.uniform(0, np.pi, count),
               rng.uniform(0.7, 1.9, count), rng.uniform(0.15, 0.32, count))
    lung -= np.minimum(lung, (6.5 + 3 * severity) * net * cover + 0.18 * lung * cover)
    region |= (cover > 0.5) & (chest.full[name] > 1.5)
  return region


def paint_interstitial(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Viral pneumonia: a fine net and haze along the bronchi of both lungs, nowhere dense."""
  region, count = np.zeros(chest.scene.shape, bool), 90
  haze = np.clip(0.7 + 0.5 * clouds(rng, chest.scene.shape, 16, 2), 0, 1) * np.float32(0.2 + 0.16 * severity)
  for name, side in BOTH:
    centre_x, centre_y, lung = side * 5.5, rng.uniform(-1, 2), chest.lung[name]
    cover = cloudy_patch(chest, centre_x, centre_y, 5.5, 7.0, 0.9, 0.3, rng)
    x, y = centre_x + rng.uniform(-5, 5, count), centre_y + rng.uniform(-7, 7, count)
    away = np.arctan2(y, x - side * 2) + rng.normal(0, 0.5, count)  # away from the hilum, near (2, 0)
    net = mesh(chest, x, y, away, rng.uniform(0.8, 2.4, count), rng.uniform(0.12, 0.3, count))
    lung -= np.minimum(lung, (haze * lung + (6 + 3 * severity) * net) * cover)
    region |= (cover > 0.5) & (chest.full[name] > 1.5)
  return region
