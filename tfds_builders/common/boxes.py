"""Boxes as archives state them, into boxes as records hold them."""
import collections
import json
import math
from xml.etree import ElementTree

from tfds_builders.common import archives

VOC_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def place_box(kind, x0, y0, x1, y1, width, height):
  """A box in the pixels of an image of width x height, as a record has it.

  Args:
    x0, y0, x1, y1: left, upper, right and lower border; a border beyond the image is moved to the image's.

  Returns:
    ((kind, y0, x0, y1, x1), None) with sides from 0 to 1, or (None, reason) where no box remains.
  """
  if not (0 < width < math.inf and 0 < height < math.inf):
    return None, 'box of an image without size'
  if not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
    return None, 'box without area'
  x0, x1 = (min(max(x / width, 0.0), 1.0) for x in (x0, x1))
  y0, y1 = (min(max(y / height, 0.0), 1.0) for y in (y0, y1))
  if x0 >= x1 or y0 >= y1:
    return None, 'box outside the image'
  return (kind, y0, x0, y1, x1), None


def read_coco(path, kinds):
  """Boxes of a COCO file: `images`, `annotations` with (x, y, width, height) in pixels, `categories`.

  Args:
    kinds: names of categories that are kept.

  Returns:
    {file_name: [(kind, y0, x0, y1, x1), ...]} of all images in the file, also those without a box,
    [(file_name, reason), ...] of what was refused; file_name is '' where the annotation names no image.

  Raises:
    ValueError: no such file.
  """
  try:
    coco = json.loads(archives.read_text(path))
    names = {category['id']: category['name'] for category in coco['categories']}
    images = {image['id']: (as_text(image['file_name']), float(image['width']), float(image['height']))
              for image in coco['images']}
    marks = []
    for mark in coco['annotations']:
      x, y, wide, high = map(float, mark['bbox'])
      hash((mark['image_id'], mark['category_id']))
      marks.append((mark['image_id'], mark['category_id'], x, y, x + wide, y + high))
  except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
    raise ValueError(f'{path} is no COCO file with boxes: {type(error).__name__} {error}'[:1000]) from error
  boxes = {name: [] for name, _, _ in images.values()}
  counts = collections.Counter(image['id'] for image in coco['images'])
  refused = [(images[number][0], 'duplicate image id in the table') for number, count in counts.items() if count > 1]
  for number, category, *sides in marks:
    name, width, height = images.get(number, ('', 1, 1))
    kind = names.get(category)
    if not name:
      refused.append(('', f'box without image: {number}'))
    elif kind not in kinds:
      refused.append((name, f'unknown kind of box: {kind or category}'))
    else:
      box, reason = place_box(kind, *sides, width, height)
      boxes[name] += [box] if box else []
      refused += [(name, reason)] if reason else []
  return boxes, refused


def as_text(name):
  if not isinstance(name, str):
    raise TypeError(f'{name!r} is no name of a file')
  return name


def parse_xml(raw):
  """Root element of an XML file.

  Raises:
    ValueError: no XML, or with a document type: none of the archives has one, and its entities may grow without limit.
  """
  try:
    return ElementTree.fromstring(raw, ElementTree.XMLParser(target=Plain()))
  except (ElementTree.ParseError, LookupError) as error:
    raise ValueError(f'unreadable XML: {error}') from error


class Plain(ElementTree.TreeBuilder):
  """Builds the tree of a document without a document type."""

  def doctype(self, name, public, system):
    raise ValueError('XML with a document type')


def read_voc(path, kinds):
  """Boxes of a VOC file, the XML of one image, in the frame that the file itself states.

  Returns:
    [(kind, y0, x0, y1, x1), ...], [reason, ...] of what was refused

  Raises:
    ValueError: no such file.
  """
  try:
    tree = parse_xml(path.read_bytes())
    width, height = (int(tree.findtext(f'size/{side}')) for side in ('width', 'height'))
    marks = [(mark.findtext('name'), *(float(mark.findtext(f'bndbox/{side}')) for side in VOC_SIDES))
             for mark in tree.iter('object')]
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(f'{path} is no VOC file: {type(error).__name__} {error}'[:1000]) from error
  boxes, refused = [], []
  for kind, *sides in marks:
    box, reason = place_box(kind, *sides, width, height) if kind in kinds else (None, f'unknown kind of box: {kind}')
    boxes += [box] if box else []
    refused += [reason] if reason else []
  return boxes, refused


def find_overlap(one, other):
  """Intersection over union of two boxes (y0, x0, y1, x1) that have an area."""
  high, wide = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
  shared = max(high, 0) * max(wide, 0)
  areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
  return shared / (sum(areas) - shared)
