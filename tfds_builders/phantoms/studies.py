"""Renders one exposure of one patient, for each anatomy: chest, hand, arm, leg, knee and jaw.

The patient's random generators decide the body and the site of a finding. They are the same for all of the patient's
images. The exposure's generator decides pose, dose and noise.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from tfds_builders.phantoms import hand as hands
from tfds_builders.phantoms import leg, limb
from tfds_builders.phantoms.acquisition import acquire, pose
from tfds_builders.phantoms.chest import draw_chest, sample_chest
from tfds_builders.phantoms.exposure import Exposure, Radiograph, bounding_box, seeded_rng
from tfds_builders.phantoms.hand import draw_hand, sample_hand
from tfds_builders.phantoms.jaw import FIELD as JAW_FIELD
from tfds_builders.phantoms.jaw import draw_jaw, sample_jaw
from tfds_builders.phantoms.knee import FIELD as KNEE_FIELD
from tfds_builders.phantoms.knee import draw_knee, sample_knee
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.scene import Scene, View, clouds
from tfds_builders.phantoms.thorax import FIELD as CHEST_FIELD
from tfds_builders.phantoms.thorax_bones import draw_wires
from tfds_builders.phantoms.variation import aim_at_site, sample_months, vary_chest

# What a patient with a normal study might have had, as often as abnormal patients of MURA have it.
PAINS = (('fracture',), ('fracture', 'hardware'), ('hardware',), ('lesion',))
LONG_PARTS = ('HUMERUS', 'FOREARM', 'LEG')  # their images are narrow


def make_rngs(
    seed: int, name: str, exposure: Exposure) -> tuple[Callable[..., np.random.Generator], np.random.Generator]:
  """The patient's generators, as a function of a word, and the generator of this exposure."""
  own = functools.partial(seeded_rng, seed, name, exposure.patient)
  return own, own('exposure', exposure.number)


def render_chest(
    seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor, child: bool = False) -> Radiograph:
  """A frontal chest of size x size pixels with the requested findings."""
  own, rng = make_rngs(seed, name, exposure)
  body = sample_chest(own('body'), child)
  if vendor.variation:
    body = vary_chest(body | {'thymus': own('thymus').random()}, own('breath', exposure.number), vendor.variation)
  requested = exposure.requested
  severity = {finding: own(finding, 'severity', exposure.number).uniform(0.15, 1) for finding in requested}
  scene, masks, regions = draw_chest(body, size / CHEST_FIELD, own, requested, severity)
  wires = own('wires', exposure.number)
  if wires.random() < (0.1 if child else 0.25):  # independent of disease, or wires would reveal the label
    draw_wires(scene, wires)
  place = pose(rng, 6 if child else 4, 0.04, 0.07)
  depth = 0.55 if child else 1.0
  image, visible = acquire(scene, (size, size), place, vendor, own('shape'), rng, masks | regions, depth)
  boxes = tuple((finding, *bounding_box(visible[finding])) for finding in requested if visible[finding].any())
  return Radiograph(
    image, exposure.patient, frozenset(requested), visible, boxes, sex='F' if body['woman'] else 'M',
    age=exposure.age, view='AP' if child or rng.random() < 0.4 else 'PA', part='CHEST')


def render_child(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """A child's chest. `requested` is the germ: bacteria fill a segment or lobe, viruses thicken the interstitium."""
  own, _ = make_rngs(seed, name, exposure)
  drawn = {'bacteria': ('Consolidation' if own('lobe').random() < 0.4 else 'Pneumonia',), 'virus': ('Interstitial',)}
  findings = drawn[exposure.requested[0]] if exposure.requested else ()
  chest = render_chest(seed, name, dataclasses.replace(exposure, requested=findings), size, vendor, child=True)
  boxes = tuple(('pneumonia', *box) for _, *box in chest.boxes)
  labels = frozenset(('pneumonia', *exposure.requested) if findings else ())
  return dataclasses.replace(chest, findings=labels, boxes=boxes)


def render_hand(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """A whole hand with a bone age of 6 to 216 months. The aspect ratio varies. Girls mature earlier than boys."""
  own, rng = make_rngs(seed, name, exposure)
  body = own('body')
  male, months = bool(body.random() < 0.54), float(np.round(np.clip(body.normal(127, 45), 6, 216)))
  hand = sample_hand(body, months if male else months * 1.1 + 4)
  field = 21.5 * body.uniform(0.97, 1.1)
  scene, _ = draw_hand(hand, size / field, own, field=field, centre=(0.0, -2.2))
  shape = (size, round(size * rng.uniform(0.72, 0.95)))
  depth = float(np.interp(months, [0, 216], [0.5, 1]))
  place = pose(rng, 12, 0.03, 0.05, rng.random() < 0.1)
  image, _ = acquire(scene, shape, place, vendor, own('shape'), rng, {}, depth)
  return Radiograph(image, exposure.patient, value=months, sex='M' if male else 'F', part='HAND')


def render_limb(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """A part of the arm, named as in MURA, or of the lower leg. `requested` is empty for a normal study."""
  own, rng = make_rngs(seed, name, exposure)
  part, requested = exposure.part, exposure.requested
  view = None
  if vendor.variation:
    site = find_site(seed, name, exposure.patient, part, requested, vendor.variation)
    view = aim_at_site(*site, own(part, 'aim', exposure.number), vendor.variation)
  scene, regions = draw_limb(own, part, vendor.variation, size, requested, view)
  tall = rng.uniform(0.62, 1.0)
  if part in LONG_PARTS or rng.random() < 0.6:
    shape = (size, round(size * tall))
  else:
    shape = (round(size * max(tall, 0.75)), size)
  if part in LONG_PARTS:
    shape = (size, round(size * rng.uniform(0.5, 0.7)))
  place = pose(rng, 16, 0.05, 0.1, rng.random() < 0.5)
  image, visible = acquire(scene, shape, place, vendor, own('shape'), rng, regions)
  boxes = tuple((finding, *bounding_box(mask)) for finding, mask in visible.items() if mask.any())
  findings = frozenset(('abnormal', *requested) if requested else ())
  return Radiograph(image, exposure.patient, findings, visible, boxes, part=part)


@functools.lru_cache(maxsize=64)  # drawing takes as long as the image, and the images of a study come one after another
def find_site(
    seed: int, name: str, patient: int, part: str, requested: tuple[str, ...],
    variation: float) -> tuple[Scene, dict[str, np.ndarray]]:
  """The site of pain of a study: a coarse scene of the whole part and its abnormal regions.

  A normal study has the site of an abnormality that is not drawn, so the centre of an image does not tell the label.
  """
  own = functools.partial(seeded_rng, seed, name, patient)
  pain = requested or PAINS[int(own(part, 'pain').integers(len(PAINS)))]
  return draw_limb(own, part, variation, 48, pain)


def draw_limb(
    own: Callable[..., np.random.Generator], part: str, variation: float, size: int, requested: Sequence[str],
    view: View | None = None) -> tuple[Scene, dict[str, np.ndarray]]:
  """Draws a part of a patient's arm, hand or leg for an image of `size` px: scene, {abnormality: bool array}.

  `view` is (centre, size) of the visible square in cm; None shows the whole part.
  """
  part_rng = functools.partial(own, part)
  severity = float(part_rng('severity').uniform(0.1, 1))
  if part in limb.WINDOWS:
    view = view or limb.WINDOWS[part]
    return limb.draw_arm(limb.sample_arm(own('body')), part, size / view[1], part_rng, requested, severity, view)
  if part in leg.WINDOWS:
    view = view or leg.WINDOWS[part]
    return leg.draw_leg(leg.sample_leg(own('body')), part, size / view[1], part_rng, requested, severity, view)
  centre, field, target = choose_window(part, part_rng('where'))
  centre, field = view or (centre, field)
  hand = sample_hand(own('body'), sample_months(own('months'), variation))
  return draw_hand(hand, size / field, part_rng, requested, severity, centre, field, target)


def choose_window(
    part: str, rng: np.random.Generator) -> tuple[tuple[float, float], float, tuple[int, int]]:
  """For HAND, WRIST or FINGER: centre and size of the field in cm, and the (ray, bone) that may be abnormal."""
  ray, bone = int(rng.integers(5)), int(rng.integers(2))
  if part == 'WRIST':
    return (0.2, 5.4), 13.0, (5, 0)
  if part == 'FINGER':
    ray = int(rng.integers(1, 4))
    (x, y), degrees, *_ = hands.RAYS[ray]
    angle = np.deg2rad(degrees)
    centre = (x + 10 * np.sin(angle), y - 10 * np.cos(angle))
    return centre, 10.5, (ray, int(rng.integers(1, 3)))
  return (0, -1.5), 22.0, (ray, bone)


def render_knee(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """One knee. `requested` is the grade, such as ('3',); `part` is the side. A right knee is a mirrored left one."""
  own, rng = make_rngs(seed, name, exposure)
  grade = int(exposure.requested[0])
  knee = sample_knee(own('body'))
  scene, regions = draw_knee(knee, grade, size / KNEE_FIELD, functools.partial(own, exposure.part))
  place = pose(rng, 5, 0.03, 0.05, exposure.part == 'R')
  image, visible = acquire(scene, (size, size), place, vendor, own('shape'), rng, regions)
  return Radiograph(image, exposure.patient, masks=visible, grade=grade, part='KNEE')


def render_jaw(seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor) -> Radiograph:
  """A panoramic image, twice as wide as high. Masks: `mandible`, and `mandible_second`, a second reader's outline."""
  own, rng = make_rngs(seed, name, exposure)
  scene, masks = draw_jaw(sample_jaw(own('body')), size / JAW_FIELD[0], own)
  masks['mandible_second'] = perturb_outline(masks['mandible'], own('second'))
  image, visible = acquire(scene, (size // 2, size), pose(rng, 3, 0.03, 0.04), vendor, own('shape'), rng, masks)
  return Radiograph(image, exposure.patient, masks=visible, part='JAW')


def perturb_outline(mask_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """A mask as another reader would outline it: moved in or out by a pixel or two in places."""
  soft = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), max(mask_HW.shape[0] / 90, 0.8))
  return soft + 0.28 * clouds(rng, mask_HW.shape, 7, 2) * (soft > 0.02) * (soft < 0.98) > 0.5
