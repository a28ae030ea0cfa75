"""One patient, one exposure, one Radiograph: the anatomies behind the archives.

The patient's dice decide the body and the place of a finding; the image's dice decide position, exposure and noise.
"""

import dataclasses
import functools

import cv2
import numpy as np

from tfds_builders.phantoms import hand as hands
from tfds_builders.phantoms import limb
from tfds_builders.phantoms.chest import FIELD as CHEST_FIELD
from tfds_builders.phantoms.chest import draw_chest, grow_chest
from tfds_builders.phantoms.film import clouds
from tfds_builders.phantoms.hand import draw_hand, grow_hand
from tfds_builders.phantoms.jaw import FIELD as JAW_FIELD
from tfds_builders.phantoms.jaw import draw_jaw, grow_jaw
from tfds_builders.phantoms.knee import FIELD as KNEE_FIELD
from tfds_builders.phantoms.knee import draw_knee, grow_knee
from tfds_builders.phantoms.room import pose, shoot
from tfds_builders.phantoms.shot import Radiograph, dice, enclose
from tfds_builders.phantoms.thorax_bones import draw_wires


def patient_dice(seed, name, shot):
  """word -> the patient's generator for it, and the generator of this exposure."""
  return functools.partial(dice, seed, name, shot.patient), dice(seed, name, shot.patient, 'exposure', shot.turn)


def take_chest(seed, name, shot, size, vendor, child=False):
  own, rng = patient_dice(seed, name, shot)
  body = grow_chest(own('body'), child)
  severity = {finding: own(finding, 'severity', shot.turn).uniform(0.15, 1) for finding in shot.asked}
  film, masks, regions = draw_chest(body, size / CHEST_FIELD, own, shot.asked, severity)
  wires = own('wires', shot.turn)
  if wires.random() < (0.1 if child else 0.25):  # as often on the healthy as on the ill, else they would give them away
    draw_wires(film, wires)
  place = pose(rng, 6 if child else 4, 0.04, 0.07)
  image, seen = shoot(film, (size, size), place, vendor, own('shape'), rng, masks | regions, 0.55 if child else 1.0)
  boxes = tuple((finding, *enclose(seen[finding])) for finding in shot.asked if seen[finding].any())
  return Radiograph(
    image, shot.patient, frozenset(shot.asked), seen, boxes, sex='F' if body['woman'] else 'M', age=shot.age,
    view='AP' if child or rng.random() < 0.4 else 'PA', part='CHEST',
  )


def take_child(seed, name, shot, size, vendor):
  """A child's chest; bacteria fill a segment or a lobe, viruses thicken what lies between. asked: the germ."""
  own, _ = patient_dice(seed, name, shot)
  drawn = {'bacteria': ('Consolidation' if own('lobe').random() < 0.4 else 'Pneumonia',), 'virus': ('Interstitial',)}
  asked = drawn[shot.asked[0]] if shot.asked else ()
  seen = take_chest(seed, name, dataclasses.replace(shot, asked=asked), size, vendor, child=True)
  boxes = tuple(('pneumonia', *box) for _, *box in seen.boxes)
  return dataclasses.replace(seen, findings=frozenset(('pneumonia', *shot.asked) if asked else ()), boxes=boxes)


def take_hand(seed, name, shot, size, vendor):
  """The whole hand at a bone age of 6 to 216 months; the picture's sides vary. A girl is ahead of a boy."""
  own, rng = patient_dice(seed, name, shot)
  body = own('body')
  male, months = bool(body.random() < 0.54), float(np.round(np.clip(body.normal(127, 45), 6, 216)))
  hand = grow_hand(body, months if male else months * 1.1 + 4)
  field = 21.5 * body.uniform(0.97, 1.1)
  film, _ = draw_hand(hand, size / field, own, field=field, centre=(0.0, -2.2))
  shape = (size, round(size * rng.uniform(0.72, 0.95)))
  thin = np.interp(months, [0, 216], [0.5, 1])
  image, _ = shoot(film, shape, pose(rng, 12, 0.03, 0.05, rng.random() < 0.1), vendor, own('shape'), rng, {}, thin)
  return Radiograph(image, shot.patient, value=months, sex='M' if male else 'F', part='HAND')


def take_limb(seed, name, shot, size, vendor):
  """A part of the upper extremity, as MURA names them; `shot.asked` is empty for a normal study."""
  own, rng = patient_dice(seed, name, shot)
  site = functools.partial(own, shot.part)
  severity = float(site('severity').uniform(0.1, 1))
  if shot.part in limb.WINDOWS:
    _, field = limb.WINDOWS[shot.part]
    film, regions = limb.draw_arm(limb.grow_arm(own('body')), shot.part, size / field, site, shot.asked, severity)
  else:
    where = site('where')
    centre, field, target = ((0, -1.5), 22.0, (int(where.integers(5)), int(where.integers(2))))
    if shot.part == 'WRIST':
      centre, field, target = (0.2, 5.4), 13.0, (5, 0)
    if shot.part == 'FINGER':
      ray = int(where.integers(1, 4))
      angle = np.deg2rad(hands.RAYS[ray][1])
      centre = (hands.RAYS[ray][0][0] + 10 * np.sin(angle), hands.RAYS[ray][0][1] - 10 * np.cos(angle))
      field, target = 10.5, (ray, int(where.integers(1, 3)))
    film, regions = draw_hand(grow_hand(own('body')), size / field, site, shot.asked, severity, centre, field, target)
  tall = rng.uniform(0.62, 1.0)
  shape = (
    (size, round(size * tall))
    if shot.part in ('HUMERUS', 'FOREARM') or rng.random() < 0.6
    else (round(size * max(tall, 0.75)), size)
  )
  if shot.part in ('HUMERUS', 'FOREARM'):
    shape = (size, round(size * rng.uniform(0.5, 0.7)))
  image, seen = shoot(film, shape, pose(rng, 16, 0.05, 0.1, rng.random() < 0.5), vendor, own('shape'), rng, regions)
  boxes = tuple((finding, *enclose(mask)) for finding, mask in seen.items() if mask.any())
  findings = frozenset(('abnormal', *shot.asked) if shot.asked else ())
  return Radiograph(image, shot.patient, findings, seen, boxes, part=shot.part)


def take_knee(seed, name, shot, size, vendor):
  """`shot.asked` holds the grade, as ('3',), `shot.part` the side: a patient's right knee is the left one mirrored."""
  own, rng = patient_dice(seed, name, shot)
  grade = int(shot.asked[0])
  film, regions = draw_knee(grow_knee(own('body')), grade, size / KNEE_FIELD, functools.partial(own, shot.part))
  place = pose(rng, 5, 0.03, 0.05, shot.part == 'R')
  image, seen = shoot(film, (size, size), place, vendor, own('shape'), rng, regions)
  return Radiograph(image, shot.patient, masks=seen, grade=grade, part='KNEE')


def take_jaw(seed, name, shot, size, vendor):
  """A panoramic picture twice as wide as high, the mandible and a second reader's slightly different outline."""
  own, rng = patient_dice(seed, name, shot)
  film, masks = draw_jaw(grow_jaw(own('body')), size / JAW_FIELD[0], own)
  masks['mandible_second'] = redraw(masks['mandible'], dice(seed, name, shot.patient, 'second'))
  image, seen = shoot(film, (size // 2, size), pose(rng, 3, 0.03, 0.04), vendor, own('shape'), rng, masks)
  return Radiograph(image, shot.patient, masks=seen, part='JAW')


def redraw(mask_HW, rng):
  """A mask as another hand would outline it: up to a pixel or two in or out, here and there."""
  soft = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), max(mask_HW.shape[0] / 90, 0.8))
  return soft + 0.28 * clouds(rng, mask_HW.shape, 7, 2) * (soft > 0.02) * (soft < 0.98) > 0.5
