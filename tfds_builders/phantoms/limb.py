"""The arm from shoulder to wrist. Each body part is a window on the whole arm."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfds_builders.phantoms.bones import draw_fracture, draw_hardware, draw_lesion, draw_small_bone, long_bone, roughen
from tfds_builders.phantoms.scene import MARGIN, Patch, Point, Scene, View, ellipsoid, hollow, slab, solid, tube

# {part: (centre, size) of the window in cm}. The shoulder joint is at (0, 0), and the arm hangs down.
WINDOWS: dict[str, View] = {
  'SHOULDER': ((-2.5, 3.0), 21), 'HUMERUS': ((0.5, 14.5), 36), 'ELBOW': ((1.2, 30.5), 18),
  'FOREARM': ((1.5, 42.0), 33),
}
BONES = {
  'SHOULDER': ('humerus', 'clavicle'), 'HUMERUS': ('humerus',), 'ELBOW': ('radius', 'ulna', 'humerus'),
  'FOREARM': ('radius', 'ulna'),
}


def sample_arm(rng: np.random.Generator) -> dict[str, Any]:
  """Samples a patient's arm."""
  n, u = rng.normal, rng.uniform
  return dict(
    shaft=1.05 + n(0, 0.1), dense=u(0.8, 1.2), flesh=u(0.8, 1.4), bend=np.deg2rad(n(0, 7)), cortex=u(0.28, 0.45),
    bow=n(0, 0.012), long=1 + n(0, 0.03), carry=u(0.02, 0.16), roll=n(0, 0.25), abduct=np.deg2rad(u(-4, 22)),
    clavicle=n(0, 0.5),
  )


def place_bones(arm: dict[str, Any]) -> dict[str, tuple]:
  """{bone: (one end, other end, shaft radius, flare of both ends)} of the long bones."""
  elbow = np.array([0.6 + arm['carry'], 30.0 * arm['long']])
  rotation = arm['bend'] - arm['carry']
  cos, sin = np.cos(rotation), np.sin(rotation)
  rotate = lambda x, y: elbow + np.array([x * cos - y * sin, x * sin + y * cos])  # noqa: E731
  s = arm['shaft']
  return {
    'humerus': ((0.1, 0.3), tuple(elbow - (0, 0.9)), s, (1.75, 1.55)),
    'radius': (tuple(rotate(1.5, 1.6)), tuple(rotate(1.6 + arm['roll'], 24.5)), 0.68 * s, (1.45, 1.9)),
    'ulna': (tuple(rotate(-0.7, 0.4)), tuple(rotate(-1.0 - arm['roll'], 24.0)), 0.66 * s, (1.75, 1.15)),
    'clavicle': ((-2.2, -2.6 + arm['clavicle'] * 0.3), (-14, -3.4 + arm['clavicle']), 0.58, (1.35, 1.4)),
  }


def draw_flesh(scene: Scene, arm: dict[str, Any], bones: dict[str, tuple]) -> None:
  """Draws the soft tissue of arm and trunk."""
  f = arm['flesh']
  elbow, wrist = np.array(bones['humerus'][1]), np.array(bones['radius'][1])
  wrist = (wrist + bones['ulna'][1]) / 2
  flesh = np.zeros(scene.shape, np.float32)
  limbs = [
    ([(0, -0.5), (0.4, 10), elbow], np.array([5.2, 4.4, 3.9]) * f**0.5, 4.4),
    (
      [elbow, elbow * 0.65 + wrist * 0.35, wrist, wrist * 1.3 - elbow * 0.3], np.array([4.0, 4.1, 2.8, 3.4]) * f**0.5,
      3.2,
    ),
  ]
  for path, radius, depth in limbs:
    window, thick = solid(tube(scene, path, radius), depth)
    np.maximum(flesh[window], thick, out=flesh[window])
  trunk = [(-26, -7), (-10, -6.5), (-4, -5.0), (1.5, -4.6), (4, -2), (3.6, 2), (-4, 6), (-5, 20), (-5, 60), (-26, 60)]
  window, inside = slab(scene, trunk)
  np.maximum(flesh[window], 11 * np.sqrt(np.clip(inside / 8, 0, 1)), out=flesh[window])
  scene['soft'] += flesh


def draw_shoulder(scene: Scene, arm: dict[str, Any], rng: np.random.Generator) -> None:
  """Draws the humeral head in its socket, the shoulder blade, the ribs behind it and the lung."""
  dense = arm['dense']
  scene.add('bone', hollow(ellipsoid_depth(scene, -0.45, 0.1, 2.35), 1.9, 0.12, 0.38), dense * 0.8)
  scene.add('bone', hollow(ellipsoid_depth(scene, 1.35, 1.0, 1.25), 1.0, 0.12, 0.3), dense * 0.6)
  blade_rim = [
    (-3.2, -1.9), (-2.75, 0.2), (-3.0, 2.6), (-5, 7), (-7.2, 13), (-8.6, 14), (-9.3, 8), (-10, 0), (-8.6, -2.4),
    (-5, -2.0),
  ]
  scene.add('bone', hollow(slab(scene, blade_rim), 0.55, 0.14, 0.2), dense)
  scene.add(
    'bone',
    hollow(tube(scene, [(-8.5, -0.6), (-3.2, -3.0), (1.0, -3.0), (1.8, -2.4)], [0.35, 0.6, 0.85, 0.6]), 0.7, 0.14, 0.3),
    dense,
  )
  scene.add(
    'bone', hollow(tube(scene, [(-3.6, -1.2), (-2.5, -2.0), (-1.3, -0.9)], [0.75, 0.6, 0.45]), 0.6, 0.13, 0.3), dense
  )
  lung = slab(scene, [(-9, -4), (-6.7, -1), (-5.7, 5), (-5.2, 14), (-5.2, 40), (-30, 40), (-30, -6), (-14, -7)])
  scene.add('lung', (lung[0], 8 * np.sqrt(np.clip(lung[1] / 7, 0, 1))))
  for i in range(6):
    y = -4.5 + 2.9 * i
    path = [
      (-22, y - 2), (-14, y - 1.2), (-8.5 + 0.35 * i, y + 0.6), (-6.2 + 0.2 * i, y + 2.4), (-8, y + 4.3),
      (-13, y + 5.5),
    ]
    scene.add('bone', hollow(tube(scene, path, [0.6, 0.6, 0.55, 0.5, 0.5, 0.55]), 0.55, 0.14, 0.25), dense)


def ellipsoid_depth(scene: Scene, x: float, y: float, r: float) -> Patch:
  """Depth below the surface of a sphere, in cm."""
  window, chord = ellipsoid(scene, x, y, r, r, r)
  return window, r - np.sqrt(np.maximum(r * r - chord * chord / 4, 0))


def draw_elbow(scene: Scene, arm: dict[str, Any], bones: dict[str, tuple], rng: np.random.Generator) -> None:
  """Draws the condyles of the humerus, the olecranon behind them and its fossa."""
  x, y = bones['humerus'][1]
  dense = arm['dense'] * 0.8
  scene.add(
    'bone',
    hollow(
      tube(
        scene, [(x - 2.1, y - 0.9), (x - 0.7, y + 0.4), (x + 1.2, y + 0.45), (x + 2.0, y - 0.6)],
        [0.55, 0.95, 0.95, 0.6]
      ),
      0.95,
      0.12,
      0.4,
    ),
    dense,
  )
  window, chord = ellipsoid(scene, x - 0.1, y - 1.2, 1.0, 0.75, 1)
  scene['bone'][window] *= 1 - 0.35 * np.clip(chord, 0, 1)
  scene.add(
    'bone', hollow(tube(scene, [(x - 0.8, y - 1.4), (x - 0.9, y + 2)], [0.85, 0.8]), 0.8, 0.15, 0.35), dense * 0.8
  )


def visible_span(a: Point, b: Point, centre: tuple[float, float], field: float) -> tuple[float, float]:
  """The part of the line from a to b that is well inside the window, as two fractions of its length."""
  t = np.linspace(0, 1, 41)
  points = np.asarray(a) + t[:, None] * (np.asarray(b) - np.asarray(a))
  seen = t[(np.abs(points - centre) < 0.42 * field).all(1)]
  return (float(seen[0]), float(seen[-1])) if len(seen) else (0.0, 1.0)


def draw_bones(
    scene: Scene, bones: Mapping[str, tuple], looks: Mapping[str, Mapping[str, Any]],
    window: tuple[tuple[float, float], float], hit: str | None, requested: Sequence[str], rng: np.random.Generator,
    severity: float) -> dict[str, Patch]:
  """Draws long bones, and on one of them the requested abnormalities.

  Args:
    scene: drawn into.
    bones: {bone: (one end, other end, shaft radius, flare of both ends)}.
    looks: {bone: further arguments of `long_bone`}.
    window: (centre, size) of the visible square in cm. Abnormalities lie inside it.
    hit: the bone that has the abnormalities.
    requested: any of fracture, hardware, lesion.
    rng: places the abnormalities.
    severity: 0 to 1.

  Returns:
    {abnormality: region}
  """
  regions = {}
  for name, (a, b, shaft, ends) in bones.items():
    span = visible_span(a, b, *window)
    if name == hit and 'fracture' in requested:
      regions['fracture'], _ = draw_fracture(scene, a, b, shaft, ends, rng, severity, span, **looks[name])
    else:
      long_bone(scene, a, b, shaft, ends, **looks[name])
    if name == hit:
      a, b = np.asarray(a), np.asarray(b)
      a, b = a + (b - a) * span[0], a + (b - a) * span[1]
      if 'lesion' in requested:
        regions['lesion'] = draw_lesion(scene, a, b, shaft, rng, severity)
      if 'hardware' in requested:
        regions['hardware'] = draw_hardware(scene, a, b, shaft, rng)
  return regions


def draw_arm(
    arm: dict[str, Any], part: str, scale: float, make_rng: Callable[..., np.random.Generator],
    requested: Sequence[str] = (), severity: float = 0.5,
    view: View | None = None) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws one part of the arm; returns the scene and {abnormality: bool array}.

  `view` is (centre, size) of the visible square in cm, by default the part's window.
  """
  centre, field = view or WINDOWS[part]
  scene = Scene(field * MARGIN, field * MARGIN, scale, centre)
  rng, site_rng = make_rng('bones'), make_rng('site')
  bones = place_bones(arm)
  draw_flesh(scene, arm, bones)
  hit = str(site_rng.choice(BONES[part])) if requested else None
  looks = {name: dict(cortex=arm['cortex'], dense=arm['dense'], fill=0.24,
                      bow=arm['bow'] * (3 if name == 'clavicle' else 1)) for name in bones}
  regions = draw_bones(scene, bones, looks, WINDOWS[part], hit, requested, site_rng, severity)
  if part in ('SHOULDER', 'HUMERUS'):
    draw_shoulder(scene, arm, rng)
  if part != 'SHOULDER':
    draw_elbow(scene, arm, bones, rng)
  if part == 'FOREARM':
    (x, y), dense = (np.array(bones['radius'][1]) + bones['ulna'][1]) / 2, arm['dense'] * 0.7
    for i, j in ((-1.3, 1.1), (0, 1.0), (1.3, 1.2), (-1.4, 2.4), (-0.1, 2.5), (1.2, 2.4), (2.3, 2.9)):
      draw_small_bone(scene, x + i, y + j, 0.68, 0.68, rng, dense)
    for i, lean in enumerate((-0.5, -0.14, 0.0, 0.12, 0.26)):
      long_bone(scene, (x + 2 - i, y + 3.3), (x + 2 - i - 9 * lean, y + 9), 0.38, dense=dense)
  roughen(scene, rng)
  return scene, {name: scene.to_full(patch) > 0 for name, patch in regions.items()}
