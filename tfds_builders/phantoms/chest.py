"""The chest from the front: samples a patient's anatomy and draws it into a scene.

Lengths are in cm of an adult. A child is drawn at the same size, with other proportions; `acquire` shortens its rays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tfds_builders.phantoms.chest_findings import PAINT, reshape
from tfds_builders.phantoms.scene import Scene, clouds, ellipsoid, solid, tube
from tfds_builders.phantoms.thorax import SIDES, Chest
from tfds_builders.phantoms.thorax_bones import draw_airways, draw_belly, draw_girdle, draw_ribs, draw_spine


def sample_chest(rng: np.random.Generator, child: bool = False) -> dict[str, Any]:
  """Samples a patient's anatomy, which all of the patient's images share."""
  n, u = rng.normal, rng.uniform
  woman = bool(rng.random() < 0.44)
  habitus = float(np.clip(n(0, 1), -2, 2))  # from long and narrow to short and wide
  half = 12.4 - 0.7 * woman + 0.6 * habitus + n(0, 0.4)
  return dict(
    woman=woman, child=child, worse=int(rng.integers(2)),
    half=half * (0.86 if child else 1),
    fat=float(np.clip(1.6 + 0.9 * habitus + n(0, 0.5), 0.7, 4.5)),
    apex=[-12.0 + 0.5 * habitus + n(0, 0.5) + (1.2 if child else 0) for _ in range(2)],
    dome=[8.6 - 0.7 * habitus + n(0, 0.8) + d - (1.2 if child else 0) for d in (0, u(0.3, 1.6))],
    bulge=u(0.8, 1.25),
    air=u(0.66, 0.8),
    ctr=u(0.47, 0.54) if child else u(0.40, 0.485),
    tilt=u(25, 50),
    knob=u(0.5, 1.0) if child else u(1.1, 1.9),
    curve=n(0, 0.5),
    twist=n(0, 0.25),
    ribs=int(rng.integers(9, 12)),
    rib_gap=u(1.95, 2.3),
    rib_drop=u(4.5, 6.5) if child else u(6.0, 9.5),
    rib_width=u(0.42, 0.58),
    bone=u(0.75, 1.25) * (1.7 if child else 1),
    clavicle=n(0, 0.6),
    shoulder=u(-1, 1),
    breast=u(0.5, 3.2) if woman and not child else 0.0,
    breast_y=u(3, 7),
    arms=u(0.5, 1.5) if child else u(0, 0.7),
    bubble=u(0.3, 1.0),
    lung_grain=u(0.6, 1.4),
    sway=[n(0, 0.25) for _ in range(8)],
  )


def draw_trunk(chest: Chest) -> None:
  """Draws soft tissue: trunk, neck, shoulders, arms, breasts."""
  scene, body, y = chest.scene, chest.body, chest.scene.y_H
  wall = body['half'] + 1.0 + body['fat']
  neck = 5.6 if body['child'] else 5.2
  top = -15.5 - body['shoulder']
  knots = [top - 4, top - 1.5, top + 1.5, top + 4, -5, 5, 20]
  half = np.interp(y, knots, [neck, neck + 1.5, wall + 1, wall + 4, wall + 1.5, wall, wall + 0.4]).astype(np.float32)
  deep = np.interp(y, [-22, -15, -10, 0, 8, 20], [11, 12, 17, 20.5, 21.5, 22.5]) + 1.5 * body['fat']
  u = np.abs(scene.x_W[None] / half[:, None])
  scene['soft'] += deep[:, None].astype(np.float32) * np.sqrt(np.maximum(1 - u * u * u, 0))
  for side in (-1, 1):
    out = body['arms'] * 5
    shoulder, elbow = (side * (wall + 1.2), top + 6.0), (side * (wall + 4.5 + out), 14 - 3 * out)
    window, depth = solid(tube(scene, [shoulder, elbow], [4.6, 3.6]), 4.0)
    np.maximum(scene['soft'][window], depth, out=scene['soft'][window])
    if body['breast']:
      size, y0 = 5 + 0.8 * body['breast'], body['breast_y']
      window, depth = ellipsoid(scene, side * (0.55 * body['half'] + 0.4), y0, size, size * 0.95, body['breast'])
      sag = np.clip((scene.y_H[window[0]] - y0 + size) / size, 0, 1)[:, None]  # thickest below
      scene.add('soft', (window, depth * sag))


def draw_lungs(chest: Chest) -> None:
  """Draws the air of the lungs. A little lung behind the abdomen is visible below the diaphragm."""
  scene, body = chest.scene, chest.body
  for name, side in SIDES.items():
    medial, lateral, t = chest.edges(side)
    air, inside = np.zeros(scene.shape, np.float32), np.zeros(scene.shape, bool)
    low = body['dome'][side > 0]
    x0, x1 = sorted((medial[np.abs(medial).argmin()], lateral[np.abs(lateral).argmax()]))
    window = scene.window(x0, x1, body['apex'][side > 0], low + 5)
    medial, lateral, t = (v[window[0]].astype(np.float32)[:, None] for v in (medial, lateral, t))
    u = np.abs((scene.x_W[window[1]] - (medial + lateral) / 2) / ((lateral - medial) / 2))
    round_off = np.sqrt(np.maximum(1 - u * u * u, 0))
    deep = body['air'] * np.interp(t, [0, 0.04, 0.15, 0.35, 0.6, 1], [0, 6, 12, 17.5, 19.5, 19]).astype(np.float32)
    below = chest.dome(side)[window[1]] - scene.y_H[window[0]][:, None]
    reach = np.sqrt(np.clip(below / 1.2, 0, 1)) * 0.9 + np.clip(0.1 + below / 30, 0, 0.1) * (t < 1.05)
    air[window] = deep * (t >= 0) * round_off * reach
    inside[window] = (below > 0) & (u < 1) & (t >= 0)
    chest.lung[name], chest.masks[f'lung_{name}'] = air, inside


def draw_heart(chest: Chest) -> None:
  """Draws heart and great vessels, which displace lung. `ctr` is the cardiothoracic ratio, heart to chest width."""
  scene, body = chest.scene, chest.body
  wide, low = body['ctr'] * 2 * body['half'], body['dome'][1] + 0.6
  knob, tilt = body['knob'], body['tilt'] / 90
  y = scene.y_H
  right = np.interp(
    y, [-14, -10, -6, -2.5, low - 8, low - 5, low - 2.5, low + 0.5, low + 2],
    [1.6, 1.9, 2.2, 2.5, 0.25 * wide, 0.325 * wide, 0.34 * wide, 0.30 * wide, 0.12 * wide],
  )
  left = np.interp(
    y,
    [-14, -8.5, -7, -5.6, -4, -2.5, -1, low - 7, low - 4 - tilt, low - 2, low + 0.3, low + 2.4],
    [
      1.5, 1.8, 2.0 + 0.7 * knob, 2.1 + 0.8 * knob, 2.3, 3.0, 3.1, 0.33 * wide + 0.6 * tilt, 0.57 * wide, 0.66 * wide,
      0.6 * wide, 0.2 * wide,
    ],
  )
  right, left = (
    cv2.GaussianBlur(v.astype(np.float32)[:, None], (1, 0), 0, sigmaY=0.75 * scene.scale) for v in (right, left)
  )
  x = chest.spine_x(y)[:, None].astype(np.float32)
  deep = np.interp(y, [-12, -5, -1, low - 5, low, low + 3], [4, 6, 7, 11, 11, 5]).astype(np.float32)[:, None]
  offset = scene.x_W[None] - x
  u = np.where(offset > 0, offset / left, -offset / right)
  u *= u
  shadow = 1.5 * deep * np.sqrt(np.maximum(1 - u * u, 0))
  chest.masks['heart'] = (u < 1) & ((y > low - 9.5) & (y < low + 1.5))[:, None]
  for lung in chest.lung.values():
    np.maximum(lung - shadow, 0.05 * lung, out=lung)


def draw_vessels(chest: Chest, rng: np.random.Generator) -> None:
  """Draws arteries that branch from each hilum and narrow at each fork, and fine texture between them."""
  scene, body, segments, widths = chest.scene, chest.body, [], []
  for side in (-1, 1):
    root = np.array([side * 2.9 + chest.spine_x(0), -0.6 - 0.3 * (side > 0)])
    tips, heading = np.repeat(root[None], 9, 0), np.linspace(-1.35, 1.45, 9) + rng.normal(0, 0.12, 9)
    width, length = 0.6 * rng.uniform(0.7, 1.2, 9), np.full(9, 2.5)
    for _ in range(5):
      step = (length * rng.uniform(0.7, 1.3, len(tips)))[:, None]
      end = tips + step * np.stack([side * np.cos(heading), np.sin(heading)], 1)
      segments.append(np.concatenate([tips, end], 1))
      widths.append(width)
      fork = rng.uniform(0.15, 0.55, len(tips))
      heading = np.stack([heading - fork, heading + fork * rng.uniform(0.4, 1, len(fork))], 1).ravel()
      keep = rng.random(len(heading)) < 0.8
      tips, heading = np.repeat(end, 2, 0)[keep], heading[keep]
      width, length = (
        (np.repeat(width, 2) * rng.uniform(0.6, 0.82, len(keep)))[keep],
        (np.repeat(length, 2) * 0.8)[keep],
      )
  web = scene.strands(np.concatenate(segments).astype(np.float32), np.concatenate(widths).astype(np.float32))
  web = 4.4 * cv2.GaussianBlur(web, (0, 0), 0.12 * scene.scale)
  web += clouds(rng, scene.shape, 26, 2) * np.float32(0.4 * body['lung_grain'])
  for side, lung in zip((-1, 1), chest.lung.values(), strict=True):
    window, hilum = ellipsoid(scene, side * 3.4 + float(chest.spine_x(0)), -0.4, 1.5, 2.6, 1.0)
    lung[window] -= np.minimum(lung[window], hilum)
    lung -= np.minimum(lung * np.float32(1 / 6), 1) * np.minimum(web, lung)


def draw_chest(
    body: dict[str, Any], scale: float, make_rng: Callable[..., np.random.Generator], findings: Sequence[str],
    severity: Mapping[str, float]) -> tuple[Scene, dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Draws a chest with findings.

  Args:
    body: from `sample_chest`.
    scale: pixels per cm.
    make_rng: gives the patient's generator for a word, so bones, vessels and the site of a finding are the same in all
      of the patient's images.
    findings: names of the findings to draw.
    severity: {finding: 0 to 1}.

  Returns:
    The scene, {anatomy: bool array}, {finding: bool array of the pixels that visibly changed}.
  """
  body = reshape(body, findings, severity)
  chest = Chest(body, scale)
  draw_trunk(chest)
  draw_lungs(chest)
  draw_heart(chest)
  chest.full = {name: lung.copy() for name, lung in chest.lung.items()}
  draw_vessels(chest, make_rng('vessels'))
  regions = {
    finding: PAINT[finding](chest, make_rng(finding), severity[finding]) for finding in findings if finding in PAINT
  }
  if 'Cardiomegaly' in findings:
    regions['Cardiomegaly'] = chest.masks['heart']
  for lung in chest.lung.values():
    chest.scene['lung'] += lung
  draw_spine(chest)
  draw_ribs(chest, make_rng('ribs'))
  draw_girdle(chest)
  draw_airways(chest)
  draw_belly(chest, make_rng('belly'))
  return chest.scene, chest.masks, regions
