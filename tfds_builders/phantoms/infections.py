"""Infections beyond the fourteen findings: tuberculosis, active and healed, and the ground glass of COVID-19."""

import numpy as np

from tfds_builders.phantoms.film import clouds, ellipsoid
from tfds_builders.phantoms.lung import blot, choose_lung, fill, mesh, pick_spot
from tfds_builders.phantoms.opacities import BOTH


def paint_active_tuberculosis(chest, site, severity):
  """A cloudy patch in the upper zone with a cavity: a ring of tissue about air."""
  name, side = choose_lung(chest, dense=True)
  x, y = pick_spot(chest, site, name, chest.body['apex'][side > 0] + 2.5, -3)
  cover = blot(chest, x, y, 2.6 + 1.2 * severity, 2.4 + 1.4 * severity, 0.6, 0.35, site)
  seen = fill(chest, name, cover, 0.6 + 0.2 * severity)
  radius, lung = 0.9 + 0.5 * severity, chest.lung[name]
  ring, wall = ellipsoid(chest.film, x, y, radius, radius * 0.9, radius)
  hole, air = ellipsoid(chest.film, x, y, radius * 0.68, radius * 0.6, radius * 2)
  lung[ring] -= np.minimum(lung[ring], 1.2 * wall)
  lung[hole] += np.minimum(1.6 * air, np.maximum(chest.full[name][hole] - lung[hole], 0))
  return seen


def paint_healed_tuberculosis(chest, site, severity):
  """A few hard, calcified spots and scars that run to the hilum, near the apex."""
  name, side = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, site, name, chest.body['apex'][side > 0] + 2.5, -4)
  film, seen, lung = chest.film, np.zeros(chest.film.shape, bool), chest.lung[name]
  count = 5 + int(4 * severity)
  spots = np.stack([x + site.normal(0, 0.9, count), y + site.normal(0, 0.8, count)], 1)
  for (u, v), radius in zip(spots, site.uniform(0.25, 0.5, count), strict=True):
    window, depth = ellipsoid(film, u, v, radius, radius, radius)
    film['bone'][window] += np.float32(0.9) * depth
    seen[window] |= depth > 0
  towards = np.arctan2(0 - spots[:, 1], side * 3 - spots[:, 0]) + site.normal(0, 0.25, count)
  scars = mesh(chest, spots[:, 0], spots[:, 1], towards, site.uniform(0.8, 1.8, count), np.full(count, 0.16))
  lung -= np.minimum(lung, 10 * scars)
  return seen | ((scars > 0.05) & (chest.full[name] > 0.5))


def paint_ground_glass(chest, site, severity):
  """Haze at the outer and lower border of both lungs, through which the vessels still show."""
  seen = np.zeros(chest.film.shape, bool)
  for name, side in BOTH:
    y = site.uniform(0, 4.5)
    _, lateral, _ = chest.edges(side)
    x = np.interp(y, chest.film.y_H, lateral) - side * site.uniform(1, 2.5)
    cover = blot(chest, x, y, 3.4 + severity, 5.0 + severity, 0.8, 0.35, site)
    mottle = np.clip(0.75 + 0.4 * clouds(site, chest.film.shape, 18, 2), 0, 1)
    seen |= fill(chest, name, cover * mottle, 0.38 + 0.25 * severity)
  return seen
