"""The hand and wrist, palm on the cassette, from an infant's to a grown-up's."""

import numpy as np

from tfds_builders.phantoms.bones import break_bone, eat_bone, long_bone, pebble, roughen, screw_plate
from tfds_builders.phantoms.film import Film, blade, ellipsoid, solid, tube
from tfds_builders.phantoms.room import MARGIN

# base of the metacarpal (x, y), direction in degrees from upright, lengths of its bones, radius of the shafts
RAYS = (
  ((-2.3, 3.1), -46, (4.2, 3.0, 2.3), 0.48), ((-1.45, 1.5), -13, (6.3, 3.9, 2.4, 1.75), 0.45),
  ((-0.35, 1.25), -2, (6.1, 4.4, 2.9, 1.85), 0.45), ((0.75, 1.45), 8, (5.5, 4.1, 2.75, 1.85), 0.41),
  ((1.75, 1.9), 19, (5.0, 3.2, 1.95, 1.6), 0.38),
)
# x, y, half axes and the month in which the bone appears in a boy (after Greulich and Pyle)
CARPALS = (
  (-0.25, 2.6, 0.72, 0.95, 3), (0.95, 2.75, 0.66, 0.85, 4), (1.75, 3.75, 0.55, 0.52, 26), (0.35, 4.15, 0.62, 0.6, 44),
  (-1.1, 3.85, 0.62, 0.85, 62), (-1.3, 2.45, 0.48, 0.5, 58), (-2.05, 2.75, 0.55, 0.6, 56), (2.1, 3.3, 0.36, 0.4, 118),
)


def grow_hand(rng, months=240.0):
  """The patient's own hand: proportions, bone density, spread of the fingers. months: skeletal age of a boy.

  A small child's bones are short, thin and faint in plump fingers; how much so is drawn by eye.
  """
  n, u = rng.normal, rng.uniform
  young = np.interp(months, [6, 60, 204], [1, 0.6, 0])
  return dict(
    months=months, stretch=[(1 + n(0, 0.04)) * (1 - 0.2 * young) for _ in RAYS], width=1 + n(0, 0.07),
    slim=1 - 0.25 * young, dense=u(0.8, 1.2) * (1 - 0.3 * young), flesh=u(1.0, 1.35) * (1 + 0.5 * young),
    spread=u(0.55, 1.3), lean=[n(0, 2.5) for _ in RAYS], tilt=n(0, 3), cortex=u(0.26, 0.4),
    onset=[n(0, 4) for _ in CARPALS], fuse=n(0, 3), ulna=n(0, 0.2),
  )


def mature(hand):
  """Width of the growth plates in cm, and the share of its final width that an epiphysis has reached."""
  months = hand['months'] + hand['fuse']
  gap = np.interp(months, [12, 60, 120, 170, 198], [0.42, 0.32, 0.22, 0.1, 0])
  share = np.interp(months, [14, 22, 60, 120, 160], [0, 0.3, 0.6, 0.95, 1.08])
  return float(gap), float(share)


def growing_bone(film, hand, base, tip, shaft, plate):
  """A long bone with its growth plate at the base (0), the tip (1) or nowhere (None)."""
  gap, share = mature(hand)
  base, tip = np.asarray(base), np.asarray(tip)
  along = (tip - base) / np.linalg.norm(tip - base)
  cap = 0.42 * shaft
  if plate is not None and gap > 0:
    trim = along * (gap + 2 * cap)
    end, sign = (base, 1) if plate == 0 else (tip, -1)
    if share > 0:
      x, y = end + sign * along * cap
      turn = np.arctan2(along[1], along[0]) + np.pi / 2
      film.add('bone', ellipsoid(film, x, y, 1.38 * shaft * share, cap, shaft * 0.8, turn), 0.55 * hand['dense'])
    base, tip = (base + trim, tip) if plate == 0 else (base, tip - trim)
  return base, tip


def draw_hand(hand, scale, dice, asked=(), severity=0.5, centre=(0.0, -1.0), field=22.0, target=None):
  """A film of `field` cm a side about `centre`, and the regions of what is abnormal.

  asked: of fracture, hardware, lesion.  target: (ray, bone) that is affected; ray 5 is the radius.
  """
  film = Film(field * MARGIN, field * MARGIN, scale, centre)
  regions, flesh, site = {}, np.zeros(film.shape, np.float32), dice('site')
  rng = dice('bones')

  def cover(patch):
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
      a, b = growing_bone(film, hand, base, tip, shaft, plate)
      look = dict(cortex=hand['cortex'], dense=hand['dense'], fill=0.3)
      hit = asked if (i, j) == target else ()
      if 'fracture' in hit:
        regions['fracture'], end = break_bone(film, a, b, shaft, ends, site, severity, **look)
        at = at + (end - b)
      else:
        long_bone(film, a, b, shaft, ends, **look)
      if 'lesion' in hit:
        regions['lesion'] = eat_bone(film, a, b, shaft, site, severity)
      if 'hardware' in hit:
        regions['hardware'] = screw_plate(film, a, b, shaft, site)
      if j or not i:
        skin = shaft * 1.5 + 0.32 * hand['flesh']
        cover(
          solid(tube(film, [at - way * 0.3, at + way * (length + (0.25 if j == len(lengths) - 1 else 0))], skin), skin)
        )
      at = at + way * length
      heading += np.deg2rad(rng.normal(0, 1.5))
  w = hand['width']
  palm = np.array(
    [(-3.2, 1.5), (-2.6, -4.6), (-0.4, -5.6), (1.6, -4.6), (3.2, -2.6), (3.1, 2.5), (2.8, 5), (-2.6, 5)]
  ) * (w * (0.95 + 0.08 * hand['flesh']), 1)
  for patch in (
    solid(blade(film, palm), 1.5),
    solid(tube(film, [(0, 4), (0.1, 8), (0.2, 20)], [2.7 * w, 2.6 * w, 3.4 * w]), 2.8),
  ):
    cover(patch)
  film['soft'] += flesh
  for (x, y, a, b, month), late in zip(CARPALS, hand['onset'], strict=True):
    grown = (hand['months'] - month * 1.0 - late) / 75
    if grown > 0:
      size = min(0.34 + 0.66 * grown, 1)
      pebble(film, x * w, y, a * size * w, b * size, rng, 0.75 * hand['dense'])
  regions |= draw_forearm_ends(film, hand, rng, asked if target and target[0] == 5 else (), site, severity)
  roughen(film, rng)
  return film, {name: film.spread(patch) > 0 for name, patch in regions.items()}


def draw_forearm_ends(film, hand, rng, asked, site, severity):
  """The far ends of radius and ulna, with their growth plates; the radius may be abnormal."""
  w, regions = hand['width'], {}
  for x, top, shaft, ends in ((-0.95 * w, 4.95, 0.72, 1.75), (1.55 * w, 5.35 + hand['ulna'], 0.5, 1.35)):
    hit = asked if x < 0 else ()
    late = dict(hand, months=hand['months'] - (6 if x < 0 else 40))
    a, b = growing_bone(film, late, (x, top), (x * 1.02 + 0.1, 13.0), shaft * 1.3, 0)
    look = dict(cortex=0.26, fill=0.3, dense=0.8 * hand['dense'])
    if 'fracture' in hit:
      regions['fracture'], _ = break_bone(film, a, b, shaft, (ends, 1), site, severity, (0, 0.6), **look)
    else:
      long_bone(film, a, b, shaft, (ends, 1), **look)
    long_bone(film, b - (0, 0.5), b + (0, 8), shaft, (1, 1), **look)
    if 'lesion' in hit:
      regions['lesion'] = eat_bone(film, a, a + (b - a) * 0.6, shaft * 1.2, site, severity)
    if 'hardware' in hit:
      regions['hardware'] = screw_plate(film, a, a + (b - a) * 0.8, shaft, site)
  return regions
