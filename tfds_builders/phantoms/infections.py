"""Infections beyond the fourteen findings: tuberculosis, active and healed, and the ground glass of COVID-19."""

import numpy as np

from tfds_builders.phantoms.lung_findings import choose_lung, cloudy_patch, mesh, pick_spot, replace_air
from tfds_builders.phantoms.opacities import BOTH
from tfds_builders.phantoms.scene import clouds, ellipsoid
from tfds_builders.phantoms.thorax import Chest


def paint_active_tuberculosis(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Active tuberculosis: a cloudy patch in the upper zone, with a cavity."""
  name, side = choose_lung(chest, dense=True)
  x, y = pick_spot(chest, rng, name, chest.body['apex'][side > 0] + 2.5, -3)
  cover = cloudy_patch(chest, x, y, 2.6 + 1.2 * severity, 2.4 + 1.4 * severity, 0.6, 0.35, rng)
  region = replace_air(chest, name, cover, 0.6 + 0.2 * severity)
  radius, lung = 0.9 + 0.5 * severity, chest.lung[name]
  ring, wall = ellipsoid(chest.scene, x, y, radius, radius * 0.9, radius)
  hole, air = ellipsoid(chest.scene, x, y, radius * 0.68, radius * 0.6, radius * 2)
  lung[ring] -= np.minimum(lung[ring], 1.2 * wall)
  lung[hole] += np.minimum(1.6 * air, np.maximum(chest.full[name][hole] - lung[hole], 0))
  return region


def paint_healed_tuberculosis(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Healed tuberculosis: calcified spots near the apex, and scars that run to the hilum."""
  name, side = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, rng, name, chest.body['apex'][side > 0] + 2.5, -4)
  scene, region, lung = chest.scene, np.zeros(chest.scene.shape, bool), chest.lung[name]
  count = 5 + int(4 * severity)
  spots = np.stack([x + rng.normal(0, 0.9, count), y + rng.normal(0, 0.8, count)], 1)
  for (u, v), radius in zip(spots, rng.uniform(0.25, 0.5, count), strict=True):
    window, depth = ellipsoid(scene, u, v, radius, radius, radius)
    scene['bone'][window] += np.float32(0.9) * depth
    region[window] |= depth > 0
  towards = np.arctan2(0 - spots[:, 1], side * 3 - spots[:, 0]) + rng.normal(0, 0.25, count)
  scars = mesh(chest, spots[:, 0], spots[:, 1], towards, rng.uniform(0.8, 1.8, count), np.full(count, 0.16))
  lung -= np.minimum(lung, 10 * scars)
  return region | ((scars > 0.05) & (chest.full[name] > 0.5))


def paint_ground_glass(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Ground glass: haze at the lateral and lower border of both lungs, through which vessels remain visible."""
  region = np.zeros(chest.scene.shape, bool)
  for name, side in BOTH:
    y = rng.uniform(0, 4.5)
    _, lateral, _ = chest.edges(side)
    x = np.interp(y, chest.scene.y_H, lateral) - side * rng.uniform(1, 2.5)
    cover = cloudy_patch(chest, x, y, 3.4 + severity, 5.0 + severity, 0.8, 0.35, rng)
    mottle = np.clip(0.75 + 0.4 * clouds(rng, chest.scene.shape, 18, 2), 0, 1)
    region |= replace_air(chest, name, cover * mottle, 0.38 + 0.25 * severity)
  return region
