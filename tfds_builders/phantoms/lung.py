"""Where findings sit in a lung, and how they take its air. Shared by the painters of findings.

A painter gets the chest, the patient's own dice for the place, and a severity from 0 to 1; it returns the region that
visibly changed, (film height, film width) bool.
"""

import numpy as np

from tfds_builders.phantoms.film import clouds


def choose_lung(chest, dense):
  """(name, side) of a lung: what is dense enough to hide others lies in one of the patient's lungs, the rest in the
  other, so that every finding stays visible."""
  left = chest.body['worse'] == dense
  return ('left', 1) if left else ('right', -1)


def pick_spot(chest, site, name, low=-8.0, high=6.0):
  """A place inside a lung where there is enough air to lose."""
  side, film = -1 if name == 'right' else 1, chest.film
  medial, lateral, _ = chest.edges(side)
  for _ in range(20):
    y = site.uniform(low, min(high, chest.body['dome'][side > 0] - 1.5))
    m, l = (np.interp(y, film.y_H, e) for e in (medial, lateral))
    x = m + (l - m) * site.uniform(0.35, 0.8)
    if chest.full[name][film.window(x, x, y, y)].max(initial=0) > 6:
      break
  return x, y


def fill(chest, name, cover_HW, share):
  """Soft tissue takes `share` of the air where cover is 1. Returns what visibly changed."""
  lung = chest.lung[name]
  loss = lung * np.float32(share) * cover_HW
  lung -= loss
  return loss > 0.9


def blot(chest, x, y, a, b, edge, rough, site, turn=0.0):
  """A cloudy patch: 1 inside, 0 outside, its rim moved about by noise."""
  film = chest.film
  dx, dy = film.x_W[None] - np.float32(x), film.y_H[:, None] - np.float32(y)
  cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
  r = np.sqrt(((dx * cos + dy * sin) / np.float32(a)) ** 2 + ((dy * cos - dx * sin) / np.float32(b)) ** 2)
  return np.clip((1 - r + rough * clouds(site, film.shape, 9, 3)) / np.float32(edge) + np.float32(0.5), 0, 1)


def mesh(chest, x, y, angle, length, width):
  """Thickness of a net of short strands that start at (x, y)."""
  reach = np.stack([length * np.cos(angle), length * np.sin(angle)], 1)
  start = np.stack([x, y], 1)
  segments = np.concatenate([start, start + reach], 1).astype(np.float32)
  return chest.film.strands(segments, np.broadcast_to(width, len(x)).astype(np.float32))
