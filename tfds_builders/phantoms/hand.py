"""The hand and wrist from the palm side, from infant to adult."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfds_builders.phantoms.bones import draw_fracture, draw_hardware, draw_lesion, draw_small_bone, long_bone, roughen
from tfds_builders.phantoms.scene import MARGIN, Patch, Point, Scene, ellipsoid, slab, solid, tube

# Per ray: base of the metacarpal (x, y), direction in degrees from vertical, lengths of its bones, shaft radius.
RAYS = (
  ((-2.3, 3.1), -46, (4.2, 3.0, 2.3), 0.48), ((-1.45, 1.5), -13, (6.3, 3.9, 2.4, 1.75), 0.45),
  ((-0.35, 1.25), -2, (6.1, 4.4, 2.9, 1.85), 0.45), ((0.75, 1.45), 8, (5.5, 4.1, 2.75, 1.85), 0.41),
  ((1.75, 1.9), 19, (5.0, 3.2, 1.95, 1.6), 0.38),
)
# x, y, semi-axes, and the month in which the bone appears in a boy (after Greulich and Pyle).
CARPALS = (
  (-0.25, 2.6, 0.72, 0.95, 3), (0.95, 2.75, 0.66, 0.85, 4), (1.75, 3.75, 0.55, 0.52, 26), (0.35, 4.15, 0.62, 0.6, 44),
  (-1.1, 3.85, 0.62, 0.85, 62), (-1.3, 2.45, 0.48, 0.5, 58), (-2.05, 2.75, 0.55, 0.6, 56), (2.1, 3.3, 0.36, 0.4, 118),
)


def sample_hand(rng: np.random.Generator, months: float = 240.0) -> dict[str, Any]:
  """Samples a patient's hand: proportions, bone density, spread of the fingers.

  Args:
    rng: the patient's generator.
    months: skeletal age of a boy. Small children have short, thin, faint bones in thick fingers; how much is by eye.
  """
  n, u = rng.normal, rng.uniform
  young = np.interp(months, [6, 60, 204], [1, 0.6, 0])
  return dict(
    months=months, stretch=[(1 + n(0, 0.04)) * (1 - 0.2 * young) for _ in RAYS], width=1 + n(0, 0.07),
    slim=1 - 0.25 * young, dense=u(0.8, 1.2) * (1 - 0.3 * young), flesh=u(1.0, 1.35) * (1 + 0.5 * young),
    spread=u(0.55, 1.3), lean=[n(0, 2.5) for _ in RAYS], tilt=n(0, 3), cortex=u(0.26, 0.4),
    onset=[n(0, 4) for _ in CARPALS], fuse=n(0, 3), ulna=n(0, 0.2),
  )


def growth_stage(hand: dict[str, Any]) -> tuple[float, float]:
  """Width of the growth plates in cm, and the fraction of its final width that an epiphysis has reached."""
  months = hand['months'] + hand['fuse']
  gap = np.interp(months, [12, 60, 120, 170, 198], [0.42, 0.32, 0.22, 0.1, 0])
  share = np.interp(months, [14, 22, 60, 120, 160], [0, 0.3, 0.6, 0.95, 1.08])
  return float(gap), float(share)


def growing_bone(
    scene: Scene, hand: dict[str, Any], base: Point, tip: Point, shaft: float,
    plate: int | None) -> tuple[np.ndarray, np.ndarray]:
  """Draws the epiphysis of a long bone, if it is still growing, and returns the ends of the shaft that remains.

  plate: growth plate at the base (0), the tip (1) or nowhere (None).
  """
  gap, share = growth_stage(hand)
  base, tip = np.asarray(base), np.asarray(tip)
  along = (tip - base) / np.linalg.norm(tip - base)
  cap = 0.42 * shaft
  if plate is not None and gap > 0:
    trim = along * (gap + 2 * cap)
    end, sign = (base, 1) if plate == 0 else (tip, -1)
    if share > 0:
      x, y = end + sign * along * cap
      rotation = np.arctan2(along[1], along[0]) + np.pi / 2
      scene.add('bone', ellipsoid(scene, x, y, 1.38 * shaft * share, cap, shaft * 0.8, rotation), 0.55 * hand['dense'])
    base, tip = (base + trim, tip) if plate == 0 else (base, tip - trim)
  return base, tip


def draw_hand(
    hand: dict[str, Any], scale: float, make_rng: Callable[..., np.random.Generator], requested: Sequence[str] = (),
    severity: float = 0.5, centre: tuple[float, float] = (0.0, -1.0), field: float = 22.0,
    target: tuple[int, int] | None = None) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws a hand.

  Args:
    hand: from `sample_hand`.
    scale: pixels per cm.
    make_rng: gives the patient's generator for a word.
    requested: any of fracture, hardware, lesion.
    severity: 0 to 1.
    centre, field: centre and size of the visible square, in cm.
    target: (ray, bone) that is abnormal; ray 5 is the radius.

  Returns:
    The scene, {abnormality: bool array}.
  """
  scene = Scene(field * MARGIN, field * MARGIN, scale, centre)
  regions, flesh, site_rng = {}, np.zeros(scene.shape, np.float32), make_rng('site')
  rng = make_rng('bones')

  def cover(patch: Patch) -> None:
    np.maximum(flesh[patch[0]], patch[1], out=flesh[patch[0]])

  for i, (root, angle, lengths, radius) in enumerate(RAYS):
    at = np.array([root[0] * hand['width'], root[1]])
    heading = np.deg2rad(angle * hand['spread'] + hand['lean'][i])
    for j, length in enumerate(lengths):
      length = length * hand['stretch'][i]
      way = np.array([np.sin(heading), -np.cos(heading)])
      shaft = radius * (1 - 0.15 * j) * hand['width'] * hand['slim']
      base, tip = at + way * 0.1, at + way * (length - 0.1)
      plate = 1 if j == 0 and i else 0
      ends = (1.5, 1.45 if j < len(lengths) - 1 else 1.05)
      a, b = growing_bone(scene, hand, base, tip, shaft, plate)
      look = dict(cortex=hand['cortex'], dense=hand['dense'], fill=0.3)
      hit = requested if (i, j) == target else ()
      if 'fracture' in hit:
        regions['fracture'], end = draw_fracture(scene, a, b, shaft, ends, site_rng, severity, **look)
        at = at + (end - b)
      else:
        long_bone(scene, a, b, shaft, ends, **look)
      if 'lesion' in hit:
        regions['lesion'] = draw_lesion(scene, a, b, shaft, site_rng, severity)
      if 'hardware' in hit:
        regions['hardware'] = draw_hardware(scene, a, b, shaft, site_rng)
      if j or not i:
        skin = shaft * 1.5 + 0.32 * hand['flesh']
        cover(
          solid(tube(scene, [at - way * 0.3, at + way * (length + (0.25 if j == len(lengths) - 1 else 0))], skin), skin)
        )
      at = at + way * length
      heading += np.deg2rad(rng.normal(0, 1.5))
  w = hand['width']
  palm = np.array(
    [(-3.2, 1.5), (-2.6, -4.6), (-0.4, -5.6), (1.6, -4.6), (3.2, -2.6), (3.1, 2.5), (2.8, 5), (-2.6, 5)]
  ) * (w * (0.95 + 0.08 * hand['flesh']), 1)
  for patch in (
    solid(slab(scene, palm), 1.5),
    solid(tube(scene, [(0, 4), (0.1, 8), (0.2, 20)], [2.7 * w, 2.6 * w, 3.4 * w]), 2.8),
  ):
    cover(patch)
  scene['soft'] += flesh
  for (x, y, half_x, half_y, month), late in zip(CARPALS, hand['onset'], strict=True):
    grown = (hand['months'] - month * 1.0 - late) / 75
    if grown > 0:
      size = min(0.34 + 0.66 * grown, 1)
      draw_small_bone(scene, x * w, y, half_x * size * w, half_y * size, rng, 0.75 * hand['dense'])
  regions |= draw_forearm_ends(scene, hand, rng, requested if target and target[0] == 5 else (), site_rng, severity)
  roughen(scene, rng)
  return scene, {name: scene.to_full(patch) > 0 for name, patch in regions.items()}


def draw_forearm_ends(
    scene: Scene, hand: dict[str, Any], rng: np.random.Generator, requested: Sequence[str],
    site_rng: np.random.Generator, severity: float) -> dict[str, Patch]:
  """Draws the distal ends of radius and ulna with their growth plates; the radius may be abnormal."""
  w, regions = hand['width'], {}
  for x, top, shaft, ends in ((-0.95 * w, 4.95, 0.72, 1.75), (1.55 * w, 5.35 + hand['ulna'], 0.5, 1.35)):
    hit = requested if x < 0 else ()
    late = dict(hand, months=hand['months'] - (6 if x < 0 else 40))
    a, b = growing_bone(scene, late, (x, top), (x * 1.02 + 0.1, 13.0), shaft * 1.3, 0)
    look = dict(cortex=0.26, fill=0.3, dense=0.8 * hand['dense'])
    if 'fracture' in hit:
      regions['fracture'], _ = draw_fracture(scene, a, b, shaft, (ends, 1), site_rng, severity, (0, 0.6), **look)
    else:
      long_bone(scene, a, b, shaft, (ends, 1), **look)
    long_bone(scene, b - (0, 0.5), b + (0, 8), shaft, (1, 1), **look)
    if 'lesion' in hit:
      regions['lesion'] = draw_lesion(scene, a, a + (b - a) * 0.6, shaft * 1.2, site_rng, severity)
    if 'hardware' in hit:
      regions['hardware'] = draw_hardware(scene, a, a + (b - a) * 0.8, shaft, site_rng)
  return regions
