"""Boxes of records: relative to the image, from 0 to 1."""

import math
from collections.abc import Sequence

Box = tuple[str, float, float, float, float]  # (class_name, y0, x0, y1, x1), from 0 to 1


def place_box(
    class_name: str, x0: float, y0: float, x1: float, y1: float, width: float,
    height: float) -> tuple[Box | None, str | None]:
  """Converts a box from pixels of a width x height image to a record's relative box, clipped to the image.

  Args:
    class_name: of the box.
    x0, y0, x1, y1: left, top, right and bottom edge in pixels.
    width, height: of the image in pixels.

  Returns:
    ((class_name, y0, x0, y1, x1), None) with coordinates from 0 to 1, or (None, reason) if no box remains.
  """
  if not (0 < width < math.inf and 0 < height < math.inf):
    return None, 'box of an image without size'
  if not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
    return None, 'box without area'
  x0, x1 = (min(max(x / width, 0.0), 1.0) for x in (x0, x1))
  y0, y1 = (min(max(y / height, 0.0), 1.0) for y in (y0, y1))
  if x0 >= x1 or y0 >= y1:
    return None, 'box outside the image'
  return (class_name, y0, x0, y1, x1), None


def compute_iou(one: Sequence[float], other: Sequence[float]) -> float:
  """Intersection over union of two boxes (y0, x0, y1, x1) with an area."""
  height, width = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
  intersection = max(height, 0) * max(width, 0)
  areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
  return intersection / (sum(areas) - intersection)
