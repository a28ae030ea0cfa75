"""Tells a radiograph from its negative by a thumbnail. Bone, metal and soft tissue are bright in a record, air is dark.

Each rule is a contrast that changes its sign when the image is inverted, so an image and its negative have the same
error rate:

| rule | used for | an image looks inverted if |
|---|---|---|
| lungs | frontal chests | the lungs are brighter than the middle of the chest |
| centre | all others, also unknown parts | border and flanks are brighter than the centre: the contrast of centre and
  border plus half the contrast of the rule `lungs` |

Errors on real radiographs; 23 knees that are negatives in the archive are left out:

| rule | Kermany (1,709) | NIH (95) | lung masks (127) | COVID (180) | knees (1,596) | panoramic (40) |
|---|---|---|---|---|---|---|
| lungs | 0 | 0 | 0 | 0 | 1,515 | 15 |
| centre | 0 | 1 | 0 | 6 | 9 | 1 |
| border against centre alone | 2 | 12 | 2 | 78 | 0 | 3 |

Skewness and median were wrong on over 80 % of the chests. `find_negatives` finds images that look like negatives of the
others, whatever they show.
"""
import cv2
import numpy as np

SIDE = 64  # of a thumbnail, pixels; the aspect is not kept
SMALL = 16  # side of the thumbnails that `find_negatives` compares
EDGE = 6  # width of the border, pixels of a thumbnail
CHEST = ('chest', 'thorax', 'lung', 'cxr')  # words in the record's `part`
LATERAL = ('l', 'll', 'rl', 'lat')  # values of the record's `view`, and all that contain "lateral"
# Cosine with the common pattern of a dataset. The knees that are negatives have about -0.8. No other real image is
# below -0.3; bones of the arm that lie across may be.
NEGATIVE = -0.3
ITERATIONS = 30  # to the common pattern; the second one is much weaker


def draw_regions() -> dict[str, np.ndarray]:
  """{name: (SIDE, SIDE) bool}: where a centred frontal chest has lungs and mediastinum, and border and centre."""
  y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
  inner = np.zeros((SIDE, SIDE), bool)
  inner[EDGE:-EDGE, EDGE:-EDGE] = True
  return {'lungs': ((abs(x - 0.28) < 0.12) | (abs(x - 0.72) < 0.12)) & (y > 0.2) & (y < 0.6),
          'middle': (abs(x - 0.5) < 0.08) & (y > 0.3) & (y < 0.9),
          'border': ~inner, 'centre': (abs(x - 0.5) < 0.25) & (abs(y - 0.5) < 0.25)}


REGIONS = draw_regions()
RULES = {  # {rule: ((factor, what should be bright, what should be dark), ...)}
  'lungs': ((1.0, 'middle', 'lungs'),),
  'centre': ((1.0, 'centre', 'border'), (0.5, 'middle', 'lungs'))}
SIGNS = {'lungs': 'the lungs are brighter than the middle of the chest',
         'centre': 'border and flanks are brighter than the centre'}


def choose_rule(part: str, view: str) -> str | None:
  """Name of the rule for an image, from its record. None for a lateral chest, where lungs and spine overlap."""
  if any(word in part.lower() for word in CHEST):
    return None if view.lower() in LATERAL or 'lateral' in view.lower() else 'lungs'
  return 'centre'


def make_thumbnail(image: np.ndarray) -> np.ndarray:
  """HW uint8 to (SIDE, SIDE) uint8."""
  return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA if min(image.shape) > SIDE else cv2.INTER_LINEAR)


def looks_inverted(thumbnail: np.ndarray, rule: str) -> bool:
  return sum(factor * (thumbnail[REGIONS[bright]].mean() - thumbnail[REGIONS[dark]].mean())
             for factor, bright, dark in RULES[rule]) < 0


def describe_pattern(thumbnail: np.ndarray) -> np.ndarray:
  """(SMALL * SMALL,) float32 of mean 0 and length 1; the negative of an image has the negative pattern."""
  small = cv2.resize(thumbnail, (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
  small -= small.mean()
  return small / max(float(np.linalg.norm(small)), 1e-6)


def find_negatives(patterns: np.ndarray) -> np.ndarray:
  """Which images look like negatives of the others.

  The common pattern is the first principal axis, not the mean: the mean of a dataset that is half inverted is flat.

  Args:
    patterns: (N, SMALL * SMALL), see `describe_pattern`; of one body part.

  Returns:
    (N,) bool, true for less than half of them.
  """
  axis = np.random.default_rng(0).standard_normal(patterns.shape[1])
  # Power iteration without BLAS: on a busy machine, the threads of an eigendecomposition wait seconds for one another.
  for _ in range(ITERATIONS):
    axis = np.einsum('nd,n->d', patterns, np.einsum('nd,d->n', patterns, axis))
    axis /= max(float(np.sqrt((axis * axis).sum())), 1e-12)
  similarity = np.einsum('nd,d->n', patterns, axis)
  return similarity * (1 if np.median(similarity) >= 0 else -1) < NEGATIVE
