"""Converts the boxes of COCO files from pixels to the relative boxes of records, and refuses other formats of boxes."""

import collections
import dataclasses
import logging
import math
import pathlib
from collections.abc import Container, Mapping, Sequence

from tfds_builders.common import plain_text
from tfds_builders.common.boxes import Box, place_box
from tfds_builders.common.coco import Annotation, Coco, describe, load_coco

CROWD_LEFT_OUT = 'box around a crowd (iscrowd), which is no single object'

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The boxes of a COCO file.

  Attributes:
    boxes: {file_name: [(class_name, y0, x0, y1, x1), ...]} of all images in the file, also those without a box.
    rejected: [(file_name, reason), ...] of the rejected boxes and images; file_name is '' if it is not known.
    left_out: {file_name: number of its annotations with `iscrowd`}, which stand for many objects.
    scaled: file names of the images whose pixels are more or fewer than the file states, with the same aspect.
  """
  boxes: dict[str, list[Box]]
  rejected: list[tuple[str, str]]
  left_out: dict[str, int]
  scaled: list[str]


def read_coco(path: pathlib.Path, box_classes: Container[str]) -> Drawn:
  """Reads the boxes of a COCO file: `load_coco` and `place_boxes`. Raises ValueError."""
  return place_boxes(load_coco(path), box_classes)


def place_boxes(
    coco: Coco, box_classes: Container[str], real_sizes: Mapping[str, tuple[int, int]] | None = None) -> Drawn:
  """Converts the annotations of a COCO file to relative boxes.

  Boxes are in pixels of the size that the file states for their image. The image may have more or fewer pixels, but if
  its aspect is another, the boxes are rejected: then they were drawn on other pixels, or the sides are swapped. Where
  the file states no size, it is the image's own.

  Args:
    coco: from `load_coco`.
    box_classes: names of the categories to keep.
    real_sizes: {file_name: (width, height)} of images in pixels, where known.

  Raises:
    ValueError: the boxes are not x, y, width, height in pixels, or there are annotations and not one gives a box.
  """
  real_sizes = real_sizes or {}
  check_format(coco, real_sizes)
  drawn = Drawn({name: [] for name in coco.sizes}, list(coco.rejected), collections.Counter(), [])
  for annotation in coco.annotations:
    name = coco.file_names.get(annotation.image_id, '')
    if name and annotation.crowd:
      drawn.left_out[name] = drawn.left_out.get(name, 0) + 1
      continue
    box, reason = place_annotation(coco, annotation, name, box_classes, real_sizes.get(name))
    if box:
      drawn.boxes[name].append(box)
    else:
      drawn.rejected.append((name, f'{reason}: {annotation.label}' + (f' of {name}' if name else '')))
  if len(drawn.rejected) > len(coco.rejected) and not any(drawn.boxes.values()):
    raise ValueError(f'{coco.path} is not a COCO file with boxes: none of its {len(coco.annotations)} annotations '
                     f'gives a box. First: {plain_text.escape(drawn.rejected[len(coco.rejected)][1])}'[:1000])
  warn_of_clipped(coco, drawn, real_sizes)
  drawn.scaled.extend(name for name, (width, height) in real_sizes.items()
                      if drawn.boxes[name] and coco.sizes[name] not in (None, (width, height)))
  return drawn


def warn_of_clipped(coco: Coco, drawn: Drawn, real_sizes: Mapping[str, tuple[int, int]]) -> None:
  """Warns of boxes that reach out of their image by more than a twentieth of it. They are clipped, which hides a format
  whose numbers mean something else, such as centre and size."""
  clipped = []
  for annotation in coco.annotations:
    name = coco.file_names.get(annotation.image_id, '')
    size = name and drawn.boxes[name] and (coco.sizes[name] or real_sizes.get(name))
    if size and annotation.bbox and not annotation.crowd:
      (x, y, w, h), (width, height) = annotation.bbox, size
      if min(x / width, y / height) < -0.05 or max((x + w) / width, (y + h) / height) > 1.05:
        clipped.append(f'{annotation.label} of {name}, {describe(list(annotation.bbox))}')
  if clipped:
    log.warning('%s: %d boxes reach out of their image and are clipped (first: %s). bbox must be x, y, width, height, '
                'with x and y of the upper left corner', coco.path, len(clipped), plain_text.escape(clipped[0]))


def place_annotation(
    coco: Coco, annotation: Annotation, name: str, box_classes: Container[str],
    real_size: tuple[int, int] | None) -> tuple[Box | None, str | None]:
  """The box of one annotation, or why it has none; `name` is the file name of its image, '' if it has none."""
  class_name = coco.class_names.get(annotation.category_id, '')
  if not annotation.image_id:
    return None, 'annotation without image_id'
  if not name:
    return None, f'box without image: no image or several have the id {annotation.image_id!r}'
  if not annotation.category_id:
    return None, 'annotation without category_id'
  if class_name not in box_classes:
    return None, f'unknown box class: {class_name or annotation.category_id!r}'
  if annotation.bbox is None:
    return None, 'annotation without bbox, four numbers, or polygons'
  size = coco.sizes[name] or real_size
  if size and real_size and not same_aspect(size, real_size):
    return None, (f'box drawn on an image of another shape: the file states {size[0]:g} x {size[1]:g}, the image has '
                  f'{real_size[0]} x {real_size[1]} (width x height)')
  x, y, width, height = annotation.bbox
  box, reason = place_box(class_name, x, y, x + width, y + height, *(size or (math.nan, math.nan)))
  return box, f'{reason}: {describe(list(annotation.bbox))}' if reason else None


def same_aspect(size: tuple[float, float], other: tuple[float, float]) -> bool:
  """Whether one (width, height) is the other scaled, up to rounding to whole pixels. Sizes that are no numbers pass:
  `place_box` has a reason for them."""
  if not all(0 < side < math.inf for side in size):
    return True
  (w, h), (width, height) = size, other
  return any(abs(one - two) <= 1 for one, two in (
    (w * height / h, width), (h * width / w, height), (width * h / height, w), (height * w / width, h)))


def check_format(coco: Coco, real_sizes: Mapping[str, tuple[int, int]]) -> None:
  """Raises ValueError if the boxes are left, top, right, bottom, or fractions of the image, as other formats have them.

  Such numbers can pass as x, y, width, height, and then the boxes miss what they mark. They are corners if all boxes
  fit as corners, but at least a quarter, read as x, y, width, height, reach far out of their image or contradict the
  stated area. Images of another shape than the file states, crowds, and boxes without area do not count.
  """
  cases = []
  for annotation in coco.annotations:
    name = coco.file_names.get(annotation.image_id, '')
    size = coco.sizes.get(name)
    if size and name in real_sizes and not same_aspect(size, real_sizes[name]):
      continue
    if annotation.crowd or not annotation.bbox or not any(annotation.bbox[2:]):
      continue
    if size and all(map(math.isfinite, (*annotation.bbox, *size))):
      cases.append((annotation, annotation.bbox, size))
  if not cases:
    return
  first = f'first: {cases[0][0].label} of {coco.file_names[cases[0][0].image_id]}, {list(cases[0][1])}'
  if all(max(bbox) <= 1 and min(bbox[2:]) < 1 and min(size) > 16 for _, bbox, size in cases):
    raise ValueError(plain_text.escape(
      f'{coco.path} is not a COCO file with boxes: no box has more than one pixel ({first}). Are they fractions of the '
      'image? Write bbox as x, y, width, height in pixels')[:1000])
  corners = all(0 <= x < right <= width + 1 and 0 <= y < bottom <= height + 1
                for _, (x, y, right, bottom), (width, height) in cases)
  beyond = sum(looks_like_corners(annotation.area, bbox, size) for annotation, bbox, size in cases)
  if corners and beyond >= max(len(cases) / 4, 1):
    raise ValueError(plain_text.escape(
      f'{coco.path} is not a COCO file with boxes: {beyond} of {len(cases)} boxes fit as left, top, right, bottom but '
      f'not as x, y, width, height ({first}). Write bbox as x, y, width, height')[:1000])


def looks_like_corners(area: float, bbox: Sequence[float], size: tuple[float, float]) -> bool:
  """Whether a bbox, read as x, y, width, height, ends well outside of the image or contradicts the stated area."""
  (x, y, right, bottom), (width, height) = bbox, size
  as_corners, as_sides = (right - x) * (bottom - y), right * bottom
  other_area = math.isclose(area, as_corners, rel_tol=0.01) and not math.isclose(area, as_sides, rel_tol=0.05)
  return other_area or x + right > 1.05 * width + 1 or y + bottom > 1.05 * height + 1
