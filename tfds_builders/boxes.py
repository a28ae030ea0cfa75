"""Boxes as archives state them, into boxes as records hold them."""
import math


def place_box(kind, x0, y0, x1, y1, width, height):
  """A box in the pixels of an image of width x height, as a record has it.

  Args:
    x0, y0, x1, y1: left, upper, right and lower border; a border beyond the image is moved to the image's.

  Returns:
    ((kind, y0, x0, y1, x1), None) with sides from 0 to 1, or (None, reason) where no box remains.
  """
  if not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
    return None, 'box without area'
  x0, x1 = (min(max(x / width, 0.0), 1.0) for x in (x0, x1))
  y0, y1 = (min(max(y / height, 0.0), 1.0) for y in (y0, y1))
  if x0 >= x1 or y0 >= y1:
    return None, 'box outside the image'
  return (kind, y0, x0, y1, x1), None
