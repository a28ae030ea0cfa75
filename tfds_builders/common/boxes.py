"""Reads COCO and VOC files, and converts their boxes from pixels to the relative boxes of records."""
import collections
import json
import math
import pathlib
from collections.abc import Container, Sequence
from xml.etree import ElementTree

from tfds_builders.common import archives

VOC_COORDINATES = ('xmin', 'ymin', 'xmax', 'ymax')

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


def read_coco(
    path: pathlib.Path, box_classes: Container[str]) -> tuple[dict[str, list[Box]], list[tuple[str, str]]]:
  """Reads the boxes of a COCO file: `images`, `categories`, and `annotations` with (x, y, width, height) in pixels.

  Args:
    path: of the JSON file.
    box_classes: names of the categories to keep.

  Returns:
    {file_name: [(class_name, y0, x0, y1, x1), ...]} of all images in the file, also those without a box, and
    [(file_name, reason), ...] of the rejected boxes; file_name is '' if the annotation's image is not in the file.

  Raises:
    ValueError: not such a file.
  """
  try:
    coco = json.loads(archives.read_text(path))
    category_names: dict = {category['id']: category['name'] for category in coco['categories']}
    images = {image['id']: (require_str(image['file_name']), float(image['width']), float(image['height']))
              for image in coco['images']}
    annotations = []
    for annotation in coco['annotations']:
      x, y, width, height = map(float, annotation['bbox'])
      hash((annotation['image_id'], annotation['category_id']))
      annotations.append((annotation['image_id'], annotation['category_id'], x, y, x + width, y + height))
  except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
    raise ValueError(f'{path} is not a COCO file with boxes: {type(error).__name__} {error}'[:1000]) from error
  boxes: dict[str, list[Box]] = {name: [] for name, _, _ in images.values()}
  counts = collections.Counter(image['id'] for image in coco['images'])
  rejected = [(images[image_id][0], 'duplicate image id in the table')
              for image_id, count in counts.items() if count > 1]
  for image_id, category_id, x0, y0, x1, y1 in annotations:
    name, image_width, image_height = images.get(image_id, ('', 1, 1))
    class_name = category_names.get(category_id, '')
    if not name:
      rejected.append(('', f'box without image: {image_id}'))
    elif class_name not in box_classes:
      rejected.append((name, f'unknown box class: {class_name or category_id}'))
    else:
      box, reason = place_box(class_name, x0, y0, x1, y1, image_width, image_height)
      boxes[name] += [box] if box else []
      rejected += [(name, reason)] if reason else []
  return boxes, rejected


def require_str(name: object) -> str:
  if not isinstance(name, str):
    raise TypeError(f'{name!r} is not a file name')
  return name


def parse_xml(raw: bytes) -> ElementTree.Element:
  """Root element of an XML file.

  Raises:
    ValueError: not XML, or XML with a document type. No archive has one, and its entities can expand without limit.
  """
  try:
    return ElementTree.fromstring(raw, ElementTree.XMLParser(target=RejectDoctype()))
  except (ElementTree.ParseError, LookupError) as error:
    raise ValueError(f'unreadable XML: {error}') from error


class RejectDoctype(ElementTree.TreeBuilder):
  """Builds the element tree and refuses a document type."""

  def doctype(self, name: str, public: str, system: str) -> None:
    raise ValueError('XML with a document type')


def read_voc(path: pathlib.Path, box_classes: Container[str]) -> tuple[list[Box], list[str]]:
  """Reads the boxes of a VOC file, which describes one image. Boxes are in pixels of the size that the file states.

  Returns:
    [(class_name, y0, x0, y1, x1), ...] and [reason, ...] of the rejected boxes.

  Raises:
    ValueError: not such a file.
  """
  try:
    tree = parse_xml(path.read_bytes())
    width, height = (int(read_child(tree, f'size/{side}')) for side in ('width', 'height'))
    annotations = [(annotation.findtext('name', ''), [float(read_child(annotation, f'bndbox/{coordinate}'))
                                                      for coordinate in VOC_COORDINATES])
                   for annotation in tree.iter('object')]
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(f'{path} is not a VOC file: {type(error).__name__} {error}'[:1000]) from error
  boxes: list[Box] = []
  rejected = []
  for class_name, (x0, y0, x1, y1) in annotations:
    box: Box | None = None
    reason: str | None = f'unknown box class: {class_name}'
    if class_name in box_classes:
      box, reason = place_box(class_name, x0, y0, x1, y1, width, height)
    boxes += [box] if box else []
    rejected += [reason] if reason else []
  return boxes, rejected


def read_child(element: ElementTree.Element, path: str) -> str:
  """Text of an element below this one; raises ValueError if it is missing."""
  text = element.findtext(path)
  if text is None:
    raise ValueError(f'no {path}')
  return text


def compute_iou(one: Sequence[float], other: Sequence[float]) -> float:
  """Intersection over union of two boxes (y0, x0, y1, x1) with an area."""
  height, width = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
  intersection = max(height, 0) * max(width, 0)
  areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
  return intersection / (sum(areas) - intersection)
