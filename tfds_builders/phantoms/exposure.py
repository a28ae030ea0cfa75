"""One planned exposure (`Exposure`), the rendered result (`Radiograph`), and the seeded random generators."""

import dataclasses
import pathlib
import zlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Exposure:
  """What to render: everything but the seed and the size.

  Attributes:
    path: of the image file, below the archive's root.
    patient: number of the patient, from 0.
    number: numbers the images of a patient, from 0.
    requested: what to draw: names of findings, the germ, or the grade as a string. `Radiograph` says what is visible.
    part: body part, or side of the body.
    age: in years.
  """

  path: str
  patient: int
  number: int
  requested: tuple[str, ...] = ()
  part: str = ''
  age: int = 0

  @property
  def file_name(self) -> str:
    return pathlib.PurePosixPath(self.path).name

  @property
  def stem(self) -> str:
    """File name without its suffix."""
    return pathlib.PurePosixPath(self.path).stem


@dataclasses.dataclass(frozen=True)
class Radiograph:
  """A rendered radiograph with labels that are exact by construction.

  Attributes:
    image: (H, W) uint8, bone bright.
    patient: number of the patient.
    findings: names of the findings that are visible.
    masks: {name: (H, W) bool}.
    boxes: ((finding, x, y, w, h), ...) in pixels; x and y are the top left corner.
    value: bone age in months.
    grade: Kellgren-Lawrence grade, 0 to 4.
    sex: 'F', 'M' or ''.
    age: in years.
    view: projection.
    part: body part.
  """

  image: np.ndarray
  patient: int
  findings: frozenset[str] = frozenset()
  masks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  boxes: tuple = ()
  value: float | None = None
  grade: int | None = None
  sex: str = ''
  age: int | None = None
  view: str = ''
  part: str = ''


def seeded_rng(*words: str | int) -> np.random.Generator:
  """A generator that depends only on these words, not on how many numbers were drawn elsewhere."""
  return np.random.default_rng([zlib.crc32(repr(word).encode()) for word in words])


def bounding_box(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
  """The tight box (x, y, w, h) of a mask in pixels.

  Raises:
    ValueError: the mask is empty.
  """
  rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
  if not len(rows):
    raise ValueError('an empty mask has no bounding box')
  return (int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))
