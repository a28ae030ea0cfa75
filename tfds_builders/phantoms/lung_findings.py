"""Where findings are in a lung, and how they replace its air. Shared by the functions that draw findings.

A `paint_` function gets the chest, the patient's generator for the finding, and a severity from 0 to 1. It returns the
region that visibly changed, a bool array of the scene's shape.
"""

import numpy as np

from tfds_builders.phantoms.scene import clouds
from tfds_builders.phantoms.thorax import Chest


def choose_lung(chest: Chest, dense: bool) -> tuple[str, int]:
  """(name, side) of the lung for a finding.

  Dense findings could hide others, so they are all in one of the patient's lungs and the rest in the other.
  """
  left = chest.body['worse'] == dense
  return ('left', 1) if left else ('right', -1)


def pick_spot(
    chest: Chest, rng: np.random.Generator, name: str, low: float = -8.0, high: float = 6.0) -> tuple[float, float]:
  """(x, y) in cm of a place inside a lung with enough air to replace."""
  side, scene = -1 if name == 'right' else 1, chest.scene
  medial, lateral, _ = chest.edges(side)
  for _ in range(20):
    y = rng.uniform(low, min(high, chest.body['dome'][side > 0] - 1.5))
    m, l = (np.interp(y, scene.y_H, e) for e in (medial, lateral))
    x = m + (l - m) * rng.uniform(0.35, 0.8)
    if chest.full[name][scene.window(x, x, y, y)].max(initial=0) > 6:
      break
  return x, y


def replace_air(chest: Chest, name: str, cover_HW: np.ndarray, share: float) -> np.ndarray:
  """Replaces the fraction `share` * cover of the air by soft tissue; returns what visibly changed."""
  lung = chest.lung[name]
  loss = lung * np.float32(share) * cover_HW
  lung -= loss
  return loss > 0.9


def cloudy_patch(
    chest: Chest, x: float, y: float, a: float, b: float, edge: float, rough: float, rng: np.random.Generator,
    rotation: float = 0.0) -> np.ndarray:
  """A cloudy ellipse with semi-axes a and b: 1 inside, 0 outside, with a noisy rim `edge` wide."""
  scene = chest.scene
  dx, dy = scene.x_W[None] - np.float32(x), scene.y_H[:, None] - np.float32(y)
  cos, sin = np.float32(np.cos(rotation)), np.float32(np.sin(rotation))
  r = np.sqrt(((dx * cos + dy * sin) / np.float32(a)) ** 2 + ((dy * cos - dx * sin) / np.float32(b)) ** 2)
  return np.clip((1 - r + rough * clouds(rng, scene.shape, 9, 3)) / np.float32(edge) + np.float32(0.5), 0, 1)


def mesh(
    chest: Chest, x: np.ndarray, y: np.ndarray, angle: np.ndarray, length: np.ndarray,
    width: np.ndarray | float) -> np.ndarray:
  """Thickness of a net of short strands that start at (x, y)."""
  reach = np.stack([length * np.cos(angle), length * np.sin(angle)], 1)
  start = np.stack([x, y], 1)
  segments = np.concatenate([start, start + reach], 1).astype(np.float32)
  return chest.scene.strands(segments, np.broadcast_to(width, len(x)).astype(np.float32))
