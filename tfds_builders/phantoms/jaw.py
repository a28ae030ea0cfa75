"""The panoramic X-ray of the jaws: the mandible unrolled, the teeth along an arch, the midface above."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfds_builders.phantoms.bones import roughen
from tfds_builders.phantoms.scene import MARGIN, Scene, clouds, ellipsoid, hollow, slab, smooth, solid, tube

FIELD = (30.0, 15.0)  # width and height of the image in cm
# Width, crown length and root length in cm, from the midline backwards; lower and upper teeth.
TEETH = (
  ((0.55, 0.62, 0.68, 0.72, 0.75, 1.12, 1.08, 1.0), (0.85, 0.62, 0.75, 0.7, 0.7, 1.02, 0.98, 0.9)),
  ((0.9, 0.9, 1.0, 0.8, 0.78, 0.75, 0.7, 0.65), (1.0, 0.95, 1.05, 0.82, 0.75, 0.75, 0.7, 0.65)),
  ((1.3, 1.35, 1.7, 1.45, 1.45, 1.35, 1.25, 1.0), (1.35, 1.3, 1.75, 1.4, 1.35, 1.25, 1.15, 0.95)),
)


def sample_jaw(rng: np.random.Generator) -> dict[str, Any]:
  """Samples a patient's jaws: proportions, lost and filled teeth."""
  n, u = rng.normal, rng.uniform
  lost = {
    (arch, side, i)
    for arch in (0, 1)
    for side in (-1, 1)
    for i in range(8)
    if rng.random() < (0.03, 0.04, 0.04, 0.08, 0.1, 0.15, 0.12, 0.35)[i] * 1.1
  }
  filled = {
    key: float(u(0.3, 1))
    for key in [(a, s, i) for a in (0, 1) for s in (-1, 1) for i in range(3, 8)]
    if rng.random() < 0.2
  }
  return dict(
    wide=1 + n(0, 0.05), high=1 + n(0, 0.06), smile=u(0.5, 1.4), ramus=1 + n(0, 0.07), chin=u(0.7, 1.3),
    angle=[n(0, 0.35) for _ in range(4)], lost=lost, filled=filled, dense=u(0.85, 1.15), gap=u(0.15, 0.5),
    lean=[n(0, 0.06) for _ in range(32)], spine=u(0.4, 1.0), body=u(0.9, 1.15),
  )


def bite(jaw: dict[str, Any], x: np.ndarray | float) -> np.ndarray:
  """y of the line between the upper and lower teeth, in cm; it curves upwards at both ends."""
  return -0.4 - 0.014 * jaw['smile'] * np.asarray(x) ** 2


def outline_mandible(jaw: dict[str, Any]) -> np.ndarray:
  """Outline of the mandible: from the right condyle around the chin to the left one, and back along the gums."""
  w, h, r, c = jaw['wide'], jaw['high'] * jaw['body'], jaw['ramus'], jaw['angle']
  half = []
  for side, (bump, tilt) in ((-1, c[:2]), (1, c[2:])):
    gum = [(x, float(bite(jaw, x)) + 1.25) for x in (1.5, 4.5, 7.0)]
    rim = (
      [(0, 1.1)]
      + gum
      + [
        (8.6, -0.6), (9.0, -2.6 * r), (9.3, -4.9 * r + 0.3 * tilt), (9.8, -5.2 * r), (10.5, -3.7 * r),
        (11.2, -4.0 * r), (11.5, -5.6 * r), (12.2, -5.9 * r), (12.7, -5.2 * r), (12.4, -3.6 * r),
        (12.3 + 0.3 * bump, -0.6), (11.6 + 0.3 * bump, 1.5 * h), (10.0, 2.9 * h), (7.0, 4.0 * h), (4.0, 4.7 * h),
        (1.5, 5.1 * h + 0.2 * jaw['chin']), (0, 5.15 * h + 0.2 * jaw['chin']),
      ]
    )
    half.append(np.array(rim) * (side * w, 1))
  return smooth(np.concatenate([half[1], half[0][::-1]]), 2)


def draw_mandible(scene: Scene, jaw: dict[str, Any]) -> np.ndarray:
  """Draws the mandible and returns its mask."""
  rim = outline_mandible(jaw)
  patch = slab(scene, rim)
  scene.add('bone', hollow(patch, 0.8, 0.22, 0.38), jaw['dense'] * 1.25)
  for side in (-1, 1):  # the mandibular canal
    x = np.array([11.0, 10.4, 8.5, 6, 4.2])
    y = np.array([-2.2, 0.2, 1.9, 2.9, 2.7]) * jaw['high']
    scene.add('bone', solid(tube(scene, np.stack([side * x * jaw['wide'], y], 1), 0.18), 0.18), -0.7)
  return scene.to_full(patch) > 0


def draw_teeth(scene: Scene, jaw: dict[str, Any]) -> None:
  """Draws the teeth that are not lost. Molars have two roots, and some teeth a metal filling."""
  leans, pulps = iter(jaw['lean']), []
  for arch, way in ((0, 1), (1, -1)):
    for side in (-1, 1):
      x = 0.0
      for i, (wide, crown, root) in enumerate(zip(*(row[arch] for row in TEETH), strict=True)):
        centre, lean = x + wide / 2, next(leans)
        x += wide * 1.04
        if (arch, side, i) in jaw['lost']:
          continue
        cx = side * centre * 1.28 * jaw['wide']
        edge = np.array([cx, float(bite(jaw, cx)) + way * (0.1 + jaw['gap'] * 0.5)])
        slope = lean + side * way * (0.02 if way > 0 else -0.012) * i
        axis = np.array([slope, way])
        pulps += draw_tooth(scene, edge, axis, wide * 1.22, crown * 1.15, root * 1.25, 1 if i < 5 else 2, jaw['dense'])
        if (arch, side, i) in jaw['filled']:
          high = 0.2 + 0.2 * jaw['filled'][arch, side, i]
          fx, fy = edge + 0.32 * axis
          scene.add('metal', ellipsoid(scene, fx, fy, wide * 0.48, high, 0.35))
  scene['bone'] -= 2.6 * scene.strands(np.array(pulps, np.float32), np.full(len(pulps), 0.16))


def draw_tooth(
    scene: Scene, edge: np.ndarray, axis: np.ndarray, wide: float, crown: float, root: float, roots: int,
    dense: float) -> list[np.ndarray]:
  """Draws an enamel crown, and roots of dentine inside a dark ligament; returns the course of the pulp.

  axis: direction from the edge to the root, per cm.
  """
  across, pulps = np.array([wide, 0]), []
  cap = tube(scene, [edge + 0.28 * axis, edge + crown * axis], [wide * 0.46, wide * 0.42])
  scene.add('bone', hollow(cap, wide * 0.5, 0.2, 0.75), 1.9 * dense)
  for offset in ((0,) if roots == 1 else (-0.27, 0.27)):
    radius = wide * (0.37 if roots == 1 else 0.25)
    path = np.stack([edge + crown * 0.9 * axis + 0.7 * offset * across,
                     edge + (crown + root * 0.6) * axis + 1.1 * offset * across,
                     edge + (crown + root) * axis + offset * across])
    window, depth = tube(scene, path, radius * np.array([1.2, 1, 0.6]))
    scene.add('bone', solid((window, depth), radius), -0.5)
    scene.add('bone', solid((window, depth - 0.22 * radius), radius), 2.1 * dense)
    pulps.append(path[[0, 2]].ravel())
  return pulps


def draw_midface(scene: Scene, jaw: dict[str, Any]) -> None:
  """Draws the upper jaw, palate, sinuses, nose, cheek bones, the airway and the ghost image of the spine."""
  rows, w = scene.y_H[:, None], jaw['wide']
  upper = smooth(
    np.array(
      [
        (-9, -5), (-9, -2.9), (-7.2, -2.0), (-4, -1.2), (0, -0.9), (4, -1.2), (7.2, -2.0), (9, -2.9), (9, -5),
        (6, -8.5), (-6, -8.5),
      ]
    )
    * (w, 1)
  )
  scene.add('bone', hollow(slab(scene, upper), 0.8, 0.15, 0.3), 0.8 * jaw['dense'])
  for side in (-1, 1):
    scene.add('gas', ellipsoid(scene, side * 5.2 * w, -5.0, 2.6, 1.7, 1.1))
    scene.add('gas', ellipsoid(scene, side * 1.0, -5.4, 0.8, 2.0, 1.3))
    scene.add(
      'bone',
      hollow(
        tube(scene, [(side * 6.5 * w, -3.6), (side * 8.4 * w, -5.4), (side * 12 * w, -6.4)], [0.3, 0.45, 0.4]),
        0.4,
        0.16,
        0.3,
      ),
      jaw['dense'],
    )
    scene.add(
      'bone',
      solid(tube(scene, [(side * 13.9, -9), (side * 13.6, 0), (side * 14.2, 9)], [1.2, 1.0, 1.1]), 1.2),
      0.8 * jaw['spine'],
    )
    scene.add(
      'gas',
      solid(tube(scene, [(side * 8.7 * w, -3.6), (side * 9.6 * w, 1.0), (side * 8.2 * w, 3.0)], [0.8, 0.7, 0.4]), 0.7),
      0.7,
    )
  scene.add('bone', solid(tube(scene, [(-7.5, -3.9), (0, -3.2), (7.5, -3.9)], 0.16), 0.16), 1.6)
  scene.add('bone', solid(tube(scene, [(0, -3.2), (0.1, -8.5)], 0.14), 0.14), 1.2)
  scene['bone'] += (
    np.float32(0.9 * jaw['spine']) * np.exp(-((scene.x_W[None] / 2.4) ** 2)) * np.clip((rows + 9) / 14, 0.15, 1)
  )
  scene.add('gas', ellipsoid(scene, 0, float(bite(jaw, 0)), 10.5, 0.22 + jaw['gap'] * 0.5, 0.8))


def draw_jaw(
    jaw: dict[str, Any], scale: float, make_rng: Callable[..., np.random.Generator],
    severity: float = 0.5) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws the jaws; returns a scene twice as wide as high, and the mask of the mandible."""
  scene, rng = Scene(FIELD[0] * MARGIN, FIELD[1] * MARGIN, scale), make_rng('bones')
  across = np.clip(1 - np.abs(scene.x_W[None] / 17.5) ** 4, 0, 1)
  scene['soft'] += (9.5 + 2.0 * np.exp(-((scene.x_W[None] / 4) ** 2))) * across * np.ones_like(scene['soft'])
  mandible = draw_mandible(scene, jaw)
  draw_midface(scene, jaw)
  draw_teeth(scene, jaw)
  scene['bone'] = np.maximum(scene['bone'], 0)
  roughen(scene, rng, 0.2)
  scene['soft'] += clouds(rng, scene.shape, 5, 3) * np.float32(0.6)
  return scene, {'mandible': mandible}
