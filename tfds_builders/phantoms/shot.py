"""What is asked of the X-ray room (a `Shot`) and what leaves it (a `Radiograph`), and the seeded dice between."""

import dataclasses
import zlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shot:
  """One exposure: everything but the seed and the size.

  `turn` numbers a patient's images. `asked` holds the findings to draw; what the drawing shows is in the Radiograph.
  """

  path: str
  patient: int
  turn: int
  asked: tuple = ()
  part: str = ''
  age: int = 0


@dataclasses.dataclass(frozen=True)
class Radiograph:
  """A rendered radiograph with labels that are exact by construction.

  image: (H, W) uint8, bone bright.  masks: name -> (H, W) bool.  boxes: (finding, x, y, w, h) in pixels of `image`,
  x and y the top left corner.  value: bone age in months.  grade: Kellgren-Lawrence, 0 to 4.  age: in years.
  """

  image: np.ndarray
  patient: int
  findings: frozenset = frozenset()
  masks: dict = dataclasses.field(default_factory=dict)
  boxes: tuple = ()
  value: float | None = None
  grade: int | None = None
  sex: str = ''
  age: int | None = None
  view: str = ''
  part: str = ''


def dice(*words):
  """A generator that depends on these words alone, never on how many numbers were drawn elsewhere."""
  return np.random.default_rng([zlib.crc32(repr(word).encode()) for word in words])


def enclose(mask_HW):
  """The tight box (x, y, w, h) of a mask, or None where it is empty."""
  rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
  if not len(rows):
    return None
  return (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))
