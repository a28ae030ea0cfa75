"""The fourteen findings of ChestX-ray14.

Some change the body before it is drawn (`reshape`). The others take air from a lung or replace lung by air (`PAINT`).
Findings of the pleura, the diaphragm and the shape of the lung are here. Those within the lung are in `opacities`, and
those beyond the fourteen in `infections`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfds_builders.phantoms import infections, opacities
from tfds_builders.phantoms.lung_findings import choose_lung, pick_spot, replace_air
from tfds_builders.phantoms.scene import ellipsoid, solid, tube
from tfds_builders.phantoms.thorax import Chest

FINDINGS = (
  'Infiltration', 'Effusion', 'Cardiomegaly', 'Nodule', 'Pleural_Thickening', 'Pneumothorax', 'Mass', 'Atelectasis',
  'Pneumonia', 'Emphysema', 'Consolidation', 'Edema', 'Fibrosis', 'Hernia',
)


def reshape(body: dict[str, Any], findings: Sequence[str], severity: Mapping[str, float]) -> dict[str, Any]:
  """The body with the changes of shape that these findings cause."""
  body = dict(body)
  if 'Cardiomegaly' in findings:
    body['ctr'] = 0.585 + 0.09 * severity['Cardiomegaly']
  if 'Emphysema' in findings:
    s = severity['Emphysema']
    body.update(
      dome=[d + 1.6 + 1.2 * s for d in body['dome']], bulge=body['bulge'] * (0.42 - 0.2 * s),
      air=min(body['air'] * 1.16, 0.9), ctr=body['ctr'] * 0.86, lung_grain=body['lung_grain'] * 0.5,
    )
  if 'Atelectasis' in findings:
    index = 1 - body['worse']
    body['dome'] = [d - (1.4 + 1.2 * severity['Atelectasis']) * (i == index) for i, d in enumerate(body['dome'])]
  return body


def paint_effusion(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Pleural effusion: fluid in the sulcus whose upper border rises at the chest wall (meniscus)."""
  name, side = choose_lung(chest, dense=True)
  scene = chest.scene
  level = chest.body['dome'][side > 0] + 0.9 - 5.5 * severity
  u = np.clip((scene.x_W[None] * side) / chest.body['half'], 0, 1.2)
  line = level - 4.2 * u**4 + 1.5 * (1 - u)
  cover = np.clip((scene.y_H[:, None] - line) / 0.8, 0, 1).astype(np.float32)
  return replace_air(chest, name, cover, 0.93)


def paint_thickening(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Pleural thickening: soft tissue along the chest wall, widest at the apex or the side."""
  name, side = choose_lung(chest, dense=False)
  _, lateral, t = chest.edges(side)
  scene = chest.scene
  centre = rng.choice([0.08, 0.5])
  wide = (0.9 + 1.1 * severity) * np.exp(-(((t - centre) / 0.22) ** 2))
  wide *= 1 + 0.25 * np.sin(scene.y_H * rng.uniform(1.5, 2.5))
  depth = np.abs(lateral)[:, None] - scene.x_W[None] * side
  cap = (scene.y_H - chest.body['apex'][side > 0])[:, None] if centre < 0.2 else 99
  cover = np.clip((wide[:, None] - np.minimum(depth, cap)) / 0.35, 0, 1).astype(np.float32)
  return replace_air(chest, name, cover, 0.9)


def paint_pneumothorax(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Pneumothorax: air between wall and lung, darker, without vessels, bounded by the thin white pleural line."""
  name, side = choose_lung(chest, dense=True)
  _, lateral, t = chest.edges(side)
  scene, lung = chest.scene, chest.lung[name]
  gap = (1.4 + 3.4 * severity) * np.interp(t, [0, 0.12, 0.5, 0.9, 1.0], [1.6, 1.5, 0.9, 0.35, 0.1])
  top = chest.body['apex'][side > 0] + 1.2 + 2.6 * severity
  depth = np.abs(lateral)[:, None] - gap[:, None] - scene.x_W[None] * side  # positive inside the collapsed lung
  depth = np.minimum(depth, (scene.y_H[:, None] - top) - 0.12 * (scene.x_W[None] * side - 5) ** 2 / 3)
  outside = np.clip(-depth / 0.15, 0, 1).astype(np.float32)
  full = chest.full[name]
  scene['gas'] += full * outside * 0.95
  lung *= 1 - outside
  lung -= np.minimum(lung, 0.9 * np.exp(-((depth / 0.12) ** 2)))
  lung -= 0.14 * lung * (1 - outside)  # the collapsing lung is denser
  return (outside > 0.5) & (full > 1.5)


def paint_atelectasis(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Atelectasis: plates of collapsed lung, low on the side with the raised diaphragm."""
  name, side = choose_lung(chest, dense=False)
  lung, region = chest.lung[name], np.zeros(chest.scene.shape, bool)
  y = chest.body['dome'][side > 0] - 0.9
  for _ in range(2 + int(severity > 0.5)):
    x = chest.body['half'] * rng.uniform(0.3, 0.42)
    long, lean = rng.uniform(4, 6), rng.uniform(-0.35, 0.15)
    path = np.array([(x, y), (x + long * 0.5, y + 0.5 * long * lean - 0.25), (x + long, y + long * lean)]) * (side, 1)
    window, depth = solid(tube(chest.scene, path, [0.2, 0.42 + 0.2 * severity, 0.2]), 0.5)
    lung[window] -= np.minimum(lung[window], depth * 5.0)
    region[window] |= depth > 0.2
    y -= rng.uniform(1.2, 1.9)
  return region & (chest.full[name] > 1)


def paint_emphysema(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Emphysema: large bullae. `reshape` adds the flat diaphragm and the deep chest."""
  region = np.zeros(chest.scene.shape, bool)
  for name in ('right', 'left'):
    for _ in range(2 + int(2 * severity)):
      x, y = pick_spot(chest, rng, name, -9, -1)
      r = rng.uniform(1.2, 2.4)
      window, depth = ellipsoid(chest.scene, x, y, r, r * 0.9, r)
      chest.scene['gas'][window] += np.minimum(depth, chest.lung[name][window]) * 0.8
      chest.lung[name][window] -= np.minimum(depth, chest.lung[name][window]) * 0.8
    region |= chest.full[name] > 2
  return region


def paint_hernia(chest: Chest, rng: np.random.Generator, severity: float) -> np.ndarray:
  """Hiatal hernia: stomach above the diaphragm, behind the heart, with gas above fluid."""
  scene, x, y = chest.scene, rng.uniform(-0.5, 2.2), chest.body['dome'][1] - 1.2
  r = 3.0 + 1.1 * severity
  window, depth = ellipsoid(scene, x, y, r * 1.15, r, 4)
  for lung in chest.lung.values():
    lung[window] -= np.minimum(lung[window], 1.6 * depth)
  level = y - 0.25 * r
  inner = ellipsoid(scene, x, y, r * 1.0, r * 0.85, 3.6)
  above = np.clip((level - scene.y_H[inner[0][0]]) / 0.12, 0, 1)[:, None]
  scene.add('gas', (inner[0], inner[1] * above))
  return (scene.to_full((window, depth)) > 0.5) & (scene.y_H < chest.body['dome'][1] + 0.8)[:, None]


PAINT = {
  'Nodule': opacities.paint_nodule, 'Mass': opacities.paint_mass, 'Infiltration': opacities.paint_infiltration,
  'Pneumonia': opacities.paint_pneumonia, 'Consolidation': opacities.paint_consolidation,
  'Edema': opacities.paint_edema, 'Fibrosis': opacities.paint_fibrosis, 'Interstitial': opacities.paint_interstitial,
  'Effusion': paint_effusion, 'Pleural_Thickening': paint_thickening, 'Pneumothorax': paint_pneumothorax,
  'Atelectasis': paint_atelectasis, 'Emphysema': paint_emphysema, 'Hernia': paint_hernia,
  'ActiveTuberculosis': infections.paint_active_tuberculosis, 'Ground glass': infections.paint_ground_glass,
  'ObsoletePulmonaryTuberculosis': infections.paint_healed_tuberculosis,
}
