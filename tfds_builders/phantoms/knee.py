"""The knee from the front, with osteoarthritis of Kellgren-Lawrence grade 0 to 4."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfds_builders.phantoms.bones import roughen
from tfds_builders.phantoms.scene import MARGIN, Scene, clouds, ellipsoid, hollow, oval, slab, smooth, solid, tube

FIELD = 13.0  # width and height of the image in cm


def sample_knee(rng: np.random.Generator) -> dict[str, Any]:
  """Samples a patient's knee."""
  n, u = rng.normal, rng.uniform
  return dict(
    width=1 + n(0, 0.06), dense=u(0.8, 1.2), notch=u(0.7, 1.3), patella=n(0, 0.4), fibula=n(0, 0.3),
    space=u(0.42, 0.58), medial=rng.random() < 0.75, spine=u(0.7, 1.2), flesh=u(0.9, 1.3), slope=n(0, 0.12),
    shaft=u(0.9, 1.1),
  )


def joint_space(knee: dict[str, Any], grade: int) -> tuple[float, float]:
  """Width of the medial and lateral joint space in cm; the worse side narrows with the grade."""
  worse = knee['space'] * (1.0, 0.93, 0.78, 0.45, 0.1)[grade]
  other = knee['space'] * (1.0, 1.0, 0.97, 0.92, 0.9)[grade]
  return (worse, other) if knee['medial'] else (other, worse)


def draw_knee(
    knee: dict[str, Any], grade: int, scale: float, make_rng: Callable[..., np.random.Generator],
    severity: float = 0.5) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws a left knee, medial side on the left; returns the scene and the mask of its joint space."""
  scene = Scene(FIELD * MARGIN, FIELD * MARGIN, scale)
  rng, w, dense = make_rng('bones'), knee['width'], knee['dense']
  inner, outer = joint_space(knee, grade)
  limb = tube(scene, [(0, -12), (0, -2), (0.2, 2), (0, 12)], np.array([7.6, 6.4, 6.0, 6.2]) * knee['flesh'])
  scene['soft'] += scene.to_full(solid(limb, 6.2))
  top_in, top_out = 1.0 - inner, 1.0 - outer + knee['slope']
  femur = np.array(
    [
      (-1.9 * knee['shaft'], -9), (-2.0, -6.5), (-3.0, -4.6), (-4.2, -3.2), (-4.5, -1.6), (-4.0, top_in - 0.5),
      (-2.9, top_in), (-1.7, top_in - 0.05), (-0.95, top_in - 0.7), (-0.45, -0.5 - 0.5 * knee['notch']),
      (0.45, -0.5 - 0.5 * knee['notch']), (1.0, top_out - 0.7), (1.8, top_out - 0.05), (3.0, top_out),
      (4.0, top_out - 0.5), (4.4, -1.5), (4.0, -3.2), (2.9, -4.8), (2.0, -6.5), (1.9 * knee['shaft'], -9),
    ]
  ) * (w, 1)
  tibia = np.array(
    [
      (-4.3, 1.35), (-4.2, 1.02), (-2.6, 1.12), (-1.0, 1.0), (-0.55, 0.55 - 0.25 * knee['spine']), (-0.15, 0.75),
      (0.4, 0.5 - 0.2 * knee['spine']), (0.9, 1.0), (2.6, 1.1 + knee['slope']), (4.2, 1.0 + knee['slope']),
      (4.3, 1.5), (4.1, 2.6), (3.0, 4.3), (2.1, 6.2), (1.7, 9), (-1.6, 9), (-2.0, 6.0), (-3.2, 4.0), (-4.2, 2.4),
    ]
  ) * (w, 1)
  for outline, radius in ((femur, 2.1), (tibia, 1.9)):
    scene.add('bone', hollow(slab(scene, smooth(outline)), radius, 0.13, 0.3), dense)
  scene.add(
    'bone',
    hollow(
      tube(
        scene, [(3.6 * w, 2.6 + knee['fibula']), (3.7 * w, 3.4), (3.4 * w, 5), (3.4 * w, 9)], [0.85, 0.95, 0.6, 0.55]
      ),
      0.7,
      0.16,
      0.25,
    ),
    dense,
  )
  scene.add('bone', hollow(slab(scene, oval(0.1 + knee['patella'], -2.9, 2.0, 2.2)), 1.0, 0.12, 0.32), dense * 0.8)
  wear(scene, w, grade, knee, (top_in, top_out), dense, rng)
  roughen(scene, rng, 0.3)
  streaks = clouds(rng, (scene.shape[0] // 4, scene.shape[1]), 50, 1)
  scene['bone'] *= 1 + np.float32(0.13) * np.repeat(streaks, 5, 0)[: scene.shape[0]]
  gap = np.zeros(scene.shape, bool)
  gap[scene.window(-4.3 * w, 4.3 * w, min(top_in, top_out) - 0.3, 1.4)] = True
  return scene, {'joint': gap}


def wear(
    scene: Scene, w: float, grade: int, knee: dict[str, Any], tops: tuple[float, float], dense: float,
    rng: np.random.Generator) -> None:
  """Draws subchondral sclerosis and osteophytes, which increase with the grade."""
  spur = (0, 0.22, 0.45, 0.75, 1.1)[grade]
  for side, top in zip((-1, 1), tops, strict=True):
    worse = (side < 0) == bool(knee['medial'])
    hard = (0.30, 0.32, 0.4, 0.6, 0.9)[grade] * (1 if worse else 0.6)
    for y in (1.2, top - 0.16):
      scene.add('bone', ellipsoid(scene, side * 2.5 * w, y, 1.7 * w, 0.17, 0.9), hard * dense)
    size = spur * (1 if worse else 0.6) * rng.uniform(0.85, 1.15)
    if size > 0.05:
      for y, lean in ((1.25, -0.35), (top - 0.55, 0.35)):
        path = [
          (side * 3.9 * w, y), (side * (4.2 * w + 0.5 * size), y + 0.1 * lean),
          (side * (4.3 * w + size), y + lean * size),
        ]
        scene.add('bone', hollow(tube(scene, path, [0.34, 0.3 * size + 0.1, 0.1]), 0.4, 0.12, 0.5), dense)
