"""Findings that fill the lung's air with something denser: spots, patches, lobes and nets."""

import numpy as np

from tfds_builders.phantoms.film import clouds, ellipsoid
from tfds_builders.phantoms.lung import blot, choose_lung, fill, mesh, pick_spot

BOTH = (('right', -1), ('left', 1))


def paint_nodule(chest, site, severity, radius=None, lobes=1):
  """A round spot of soft tissue, less than 3 cm across."""
  name, _ = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, site, name)
  radius = radius or 0.8 + 0.55 * severity
  lung, seen = chest.lung[name], np.zeros(chest.film.shape, bool)
  for _ in range(lobes):
    dx, dy = site.normal(0, 0.35 * radius * (lobes > 1), 2)
    a, b = radius * site.uniform(0.85, 1.1), radius * site.uniform(0.8, 1)
    window, depth = ellipsoid(chest.film, x + dx, y + dy, a, b, radius * 1.6, site.uniform(0, 3))
    lung[window] -= np.minimum(lung[window], depth)
    seen[window] |= depth > 0
  return seen & (chest.full[name] > 0.5)


def paint_mass(chest, site, severity):
  """A lobed lump of more than 3 cm."""
  return paint_nodule(chest, site, severity, radius=1.9 + 1.0 * severity, lobes=4)


def paint_infiltration(chest, site, severity):
  """Ill-defined patchy haze over the middle and lower zone of one lung."""
  name, _ = choose_lung(chest, dense=False)
  x, y = pick_spot(chest, site, name, -2, 5)
  cover = blot(chest, x, y, 4.2, 5.0, 1.1, 0.35, site)
  mottle = np.clip(0.45 + 0.6 * clouds(site, chest.film.shape, 22, 2), 0, 1)
  return fill(chest, name, cover * mottle, 0.42 + 0.25 * severity)


def paint_pneumonia(chest, site, severity):
  """A segment filled with exudate: dense, cloudy, with air left in the bronchi."""
  name, side = choose_lung(chest, dense=True)
  x, y = pick_spot(chest, site, name, -6, 6)
  cover = blot(chest, x, y, 3.6 + severity, 3.0 + severity, 0.5, 0.3, site, site.uniform(0, 3))
  return fill(chest, name, cover * air_bronchogram(chest, side, site), 0.62 + 0.2 * severity)


def paint_consolidation(chest, site, severity):
  """A whole lobe up to its fissure: homogeneous, one straight border."""
  name, side = choose_lung(chest, dense=True)
  upper = site.random() < 0.5
  fissure = site.uniform(-3.5, 0) if upper else site.uniform(-1, 2.5)
  level = fissure + 0.12 * side * chest.film.x_W[None] * site.uniform(-1, 1)
  below = (chest.film.y_H[:, None] - level) * (-1 if upper else 1)
  cover = np.clip(below / 0.5, 0, 1) * np.clip(0.85 + 0.2 * clouds(site, chest.film.shape, 6, 2), 0, 1)
  return fill(chest, name, cover * air_bronchogram(chest, side, site), 0.62 + 0.22 * severity)


def air_bronchogram(chest, side, site):
  """1 but for the bronchi that stay open, seen as dark branches within an opacity."""
  count = 9
  x, y, angle = np.full(count, side * 3.0), site.uniform(-3, 4, count), site.uniform(-0.9, 1.2, count)
  bend, long = angle + site.uniform(-0.5, 0.5, count), site.uniform(2, 4, count)
  x2, y2 = x + side * long * np.cos(angle), y + long * np.sin(angle)
  x, y, angle, long = np.append(x, x2), np.append(y, y2), np.append(angle, bend), np.append(long, long * 0.8)
  tree = mesh(chest, x, y, angle, side * long * np.where(np.cos(angle) > 0, 1, -1), 0.24)
  return 1 - np.minimum(tree / 0.24, 1) * np.float32(0.28)


def paint_edema(chest, site, severity):
  """Fluid around both hila like a bat's wings, and thickened septa to the sides."""
  seen, count = np.zeros(chest.film.shape, bool), 30
  for name, side in BOTH:
    lung = chest.lung[name]
    cover = blot(chest, side * 5.0, 0.6, 4.4, 6.0, 0.9, 0.35, site)
    cover *= np.clip(0.75 + 0.35 * clouds(site, chest.film.shape, 18, 2), 0, 1)
    seen |= fill(chest, name, cover, 0.45 + 0.25 * severity)
    x, y = side * site.uniform(0.75, 0.97, count) * chest.body['half'], site.uniform(0, 9, count)
    lung -= np.minimum(lung, 4 * mesh(chest, x, y, site.normal(0, 0.15, count), -side * np.full(count, 1.4), 0.13))
  return seen


def paint_fibrosis(chest, site, severity):
  """A coarse net of scars with small clear holes, at the bases or the apices."""
  high, count = site.random() < 0.4, 130
  seen = np.zeros(chest.film.shape, bool)
  for name, side in BOTH:
    x, y, lung = side * 7.5, (-7.5 if high else 6.0), chest.lung[name]
    cover = blot(chest, x, y, 4.5, 3.8, 0.5, 0.25, site)
    net = mesh(chest, x + site.uniform(-5, 5, count), y + site.uniform(-5, 5, count), site.uniform(0, np.pi, count),
               site.uniform(0.7, 1.9, count), site.uniform(0.15, 0.32, count))
    lung -= np.minimum(lung, (6.5 + 3 * severity) * net * cover + 0.18 * lung * cover)
    seen |= (cover > 0.5) & (chest.full[name] > 1.5)
  return seen


def paint_interstitial(chest, site, severity):
  """Viral pneumonia: a fine net and haze along the bronchi of both lungs, nowhere dense."""
  seen, count = np.zeros(chest.film.shape, bool), 90
  haze = np.clip(0.7 + 0.5 * clouds(site, chest.film.shape, 16, 2), 0, 1) * np.float32(0.2 + 0.16 * severity)
  for name, side in BOTH:
    x, y, lung = side * 5.5, site.uniform(-1, 2), chest.lung[name]
    cover = blot(chest, x, y, 5.5, 7.0, 0.9, 0.3, site)
    x, y = x + site.uniform(-5, 5, count), y + site.uniform(-7, 7, count)
    away = np.arctan2(y, x - side * 2) + site.normal(0, 0.5, count)  # the hilum is near (2, 0)
    net = mesh(chest, x, y, away, site.uniform(0.8, 2.4, count), site.uniform(0.12, 0.3, count))
    lung -= np.minimum(lung, (haze * lung + (6 + 3 * severity) * net) * cover)
    seen |= (cover > 0.5) & (chest.full[name] > 1.5)
  return seen
