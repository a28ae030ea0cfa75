"""The lower leg from knee to ankle, from the front. Each body part is a window on the whole lower leg."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfds_builders.phantoms.bones import draw_small_bone, long_bone, roughen
from tfds_builders.phantoms.limb import draw_bones
from tfds_builders.phantoms.scene import MARGIN, Scene, View, solid, tube

# {part: (centre, size) of the window in cm}. The knee joint is at (0, 0), and the foot is below.
WINDOWS: dict[str, View] = {'LEG': ((0.8, 19.0), 46), 'ANKLE': ((0.8, 34.0), 22)}
BONES = ('tibia', 'fibula')  # those that may be abnormal


def sample_leg(rng: np.random.Generator) -> dict[str, Any]:
  """Samples a patient's lower leg."""
  n, u = rng.normal, rng.uniform
  return dict(shaft=1.2 + n(0, 0.1), dense=u(0.8, 1.2), flesh=u(0.85, 1.25), cortex=u(0.28, 0.42), bow=n(0, 0.01),
              long=1 + n(0, 0.03), fibula=n(0, 0.2))


def place_bones(leg: dict[str, Any]) -> dict[str, tuple]:
  """{bone: (one end, other end, shaft radius, flare of both ends)} of the long bones."""
  s, end, side = leg['shaft'], 36.0 * leg['long'], 2.9 + leg['fibula']
  return {'femur': ((-0.6, -24.0), (0.0, -0.9), 1.2 * s, (1.1, 2.6)),
          'tibia': ((0.0, 1.1), (-0.3, end), s, (2.6, 1.5)),
          'fibula': ((side + 0.2, 3.2), (side - 0.3, end + 1.1), 0.5 * s, (1.5, 1.7))}


def draw_leg(
    leg: dict[str, Any], part: str, scale: float, make_rng: Callable[..., np.random.Generator],
    requested: Sequence[str] = (), severity: float = 0.5,
    view: View | None = None) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws one part of the lower leg; returns the scene and {abnormality: bool array}.

  `view` is (centre, size) of the visible square in cm, by default the part's window.
  """
  centre, field = view or WINDOWS[part]
  scene = Scene(field * MARGIN, field * MARGIN, scale, centre)
  rng, site_rng = make_rng('bones'), make_rng('site')
  bones, dense = place_bones(leg), leg['dense']
  _, ankle = bones['tibia'][1]
  path = [(-0.6, -24), (0, 0), (0.9, 9), (0.7, 22), (0.6, ankle), (0.8, ankle + 4), (0.8, ankle + 14)]
  radius = np.array([8.5, 6.0, 6.2, 4.8, 3.7, 3.9, 4.4]) * leg['flesh']
  scene['soft'] += scene.to_full(solid(tube(scene, path, radius), 5.5))
  hit = str(site_rng.choice(BONES)) if requested else None
  looks = {name: dict(cortex=leg['cortex'], dense=dense, fill=0.26, bow=leg['bow']) for name in bones}
  regions = draw_bones(scene, bones, looks, WINDOWS[part], hit, requested, site_rng, severity)
  draw_small_bone(scene, 0.4, ankle + 1.9, 2.0, 1.2, rng, 0.8 * dense)  # talus
  for x in (-1.4, 0.4, 2.2):  # the foot, which points towards the tube
    draw_small_bone(scene, x, ankle + 4.2, 1.0, 1.3, rng, 0.7 * dense)
  for x in (-1.9, -0.6, 0.6, 1.7, 2.7):
    long_bone(scene, (x, ankle + 5.2), (1.25 * x, ankle + 11), 0.4, dense=0.8 * dense)
  roughen(scene, rng)
  return scene, {name: scene.to_full(patch) > 0 for name, patch in regions.items()}
