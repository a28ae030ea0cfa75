"""The fourteen findings of ChestX-ray14, each drawn by what it is made of.

Some change the body before it is drawn (`reshape`), the others take air from a lung or replace lung by air (`PAINT`).
Those of the pleura, the diaphragm and the shape of the lung are here, those within the lung in opacities and, beyond
the fourteen, in infections.
"""

import numpy as np

from tfds_builders.phantoms import infections, opacities
from tfds_builders.phantoms.film import ellipsoid, solid, tube
from tfds_builders.phantoms.lung import choose_lung, fill, pick_spot

FINDINGS = (
  'Infiltration', 'Effusion', 'Cardiomegaly', 'Nodule', 'Pleural_Thickening', 'Pneumothorax', 'Mass', 'Atelectasis',
  'Pneumonia', 'Emphysema', 'Consolidation', 'Edema', 'Fibrosis', 'Hernia',
)


def reshape(body, findings, severity):
  """The body as these findings have changed it."""
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


def paint_effusion(chest, site, severity):
  """Fluid settles in the sulcus; its upper line climbs at the side wall (meniscus)."""
  name, side = choose_lung(chest, dense=True)
  film = chest.film
  level = chest.body['dome'][side > 0] + 0.9 - 5.5 * severity
  u = np.clip((film.x_W[None] * side) / chest.body['half'], 0, 1.2)
  line = level - 4.2 * u**4 + 1.5 * (1 - u)
  cover = np.clip((film.y_H[:, None] - line) / 0.8, 0, 1).astype(np.float32)
  return fill(chest, name, cover, 0.93)


def paint_thickening(chest, site, severity):
  """A rind of soft tissue along the wall, widest at the apex or the side."""
  name, side = choose_lung(chest, dense=False)
  _, lateral, t = chest.edges(side)
  film = chest.film
  centre = site.choice([0.08, 0.5])
  wide = (0.9 + 1.1 * severity) * np.exp(-(((t - centre) / 0.22) ** 2))
  wide *= 1 + 0.25 * np.sin(film.y_H * site.uniform(1.5, 2.5))
  depth = np.abs(lateral)[:, None] - film.x_W[None] * side
  cap = (film.y_H - chest.body['apex'][side > 0])[:, None] if centre < 0.2 else 99
  cover = np.clip((wide[:, None] - np.minimum(depth, cap)) / 0.35, 0, 1).astype(np.float32)
  return fill(chest, name, cover, 0.9)


def paint_pneumothorax(chest, site, severity):
  """Air between wall and lung: blacker, without vessels, bounded by the thin white line of the pleura."""
  name, side = choose_lung(chest, dense=True)
  _, lateral, t = chest.edges(side)
  film, lung = chest.film, chest.lung[name]
  gap = (1.4 + 3.4 * severity) * np.interp(t, [0, 0.12, 0.5, 0.9, 1.0], [1.6, 1.5, 0.9, 0.35, 0.1])
  top = chest.body['apex'][side > 0] + 1.2 + 2.6 * severity
  depth = np.abs(lateral)[:, None] - gap[:, None] - film.x_W[None] * side  # positive inside the retreated lung
  depth = np.minimum(depth, (film.y_H[:, None] - top) - 0.12 * (film.x_W[None] * side - 5) ** 2 / 3)
  outside = np.clip(-depth / 0.15, 0, 1).astype(np.float32)
  room = chest.full[name]
  film['gas'] += room * outside * 0.95
  lung *= 1 - outside
  lung -= np.minimum(lung, 0.9 * np.exp(-((depth / 0.12) ** 2)))
  lung -= 0.14 * lung * (1 - outside)  # the collapsing lung is denser
  return (outside > 0.5) & (room > 1.5)


def paint_atelectasis(chest, site, severity):
  """Plates of collapsed lung low on the side whose diaphragm has risen."""
  name, side = choose_lung(chest, dense=False)
  lung, seen = chest.lung[name], np.zeros(chest.film.shape, bool)
  y = chest.body['dome'][side > 0] - 0.9
  for _ in range(2 + int(severity > 0.5)):
    x = chest.body['half'] * site.uniform(0.3, 0.42)
    long, lean = site.uniform(4, 6), site.uniform(-0.35, 0.15)
    path = np.array([(x, y), (x + long * 0.5, y + 0.5 * long * lean - 0.25), (x + long, y + long * lean)]) * (side, 1)
    window, depth = solid(tube(chest.film, path, [0.2, 0.42 + 0.2 * severity, 0.2]), 0.5)
    lung[window] -= np.minimum(lung[window], depth * 5.0)
    seen[window] |= depth > 0.2
    y -= site.uniform(1.2, 1.9)
  return seen & (chest.full[name] > 1)


def paint_emphysema(chest, site, severity):
  """Destroyed walls: large clear bubbles; the flat diaphragm and the deep chest come from `reshape`."""
  seen = np.zeros(chest.film.shape, bool)
  for name in ('right', 'left'):
    for _ in range(2 + int(2 * severity)):
      x, y = pick_spot(chest, site, name, -9, -1)
      r = site.uniform(1.2, 2.4)
      window, depth = ellipsoid(chest.film, x, y, r, r * 0.9, r)
      chest.film['gas'][window] += np.minimum(depth, chest.lung[name][window]) * 0.8
      chest.lung[name][window] -= np.minimum(depth, chest.lung[name][window]) * 0.8
    seen |= chest.full[name] > 2
  return seen


def paint_hernia(chest, site, severity):
  """Stomach above the diaphragm, behind the heart: a round shadow with gas over fluid."""
  film, x, y = chest.film, site.uniform(-0.5, 2.2), chest.body['dome'][1] - 1.2
  r = 3.0 + 1.1 * severity
  window, depth = ellipsoid(film, x, y, r * 1.15, r, 4)
  for lung in chest.lung.values():
    lung[window] -= np.minimum(lung[window], 1.6 * depth)
  level = y - 0.25 * r
  inner = ellipsoid(film, x, y, r * 1.0, r * 0.85, 3.6)
  above = np.clip((level - film.y_H[inner[0][0]]) / 0.12, 0, 1)[:, None]
  film.add('gas', (inner[0], inner[1] * above))
  return (film.spread((window, depth)) > 0.5) & (film.y_H < chest.body['dome'][1] + 0.8)[:, None]


PAINT = {
  'Nodule': opacities.paint_nodule, 'Mass': opacities.paint_mass, 'Infiltration': opacities.paint_infiltration,
  'Pneumonia': opacities.paint_pneumonia, 'Consolidation': opacities.paint_consolidation,
  'Edema': opacities.paint_edema, 'Fibrosis': opacities.paint_fibrosis, 'Interstitial': opacities.paint_interstitial,
  'Effusion': paint_effusion, 'Pleural_Thickening': paint_thickening, 'Pneumothorax': paint_pneumothorax,
  'Atelectasis': paint_atelectasis, 'Emphysema': paint_emphysema, 'Hernia': paint_hernia,
  'ActiveTuberculosis': infections.paint_active_tuberculosis, 'Ground glass': infections.paint_ground_glass,
  'ObsoletePulmonaryTuberculosis': infections.paint_healed_tuberculosis,
}
