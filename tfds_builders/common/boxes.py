"""Reads COCO and VOC files, and converts their boxes from pixels to the relative boxes of records."""
import collections
import dataclasses
import json
import logging
import math
import pathlib
import re
from collections.abc import Container, Mapping, Sequence
from xml.etree import ElementTree

from tfds_builders.common import archives

VOC_COORDINATES = ('xmin', 'ymin', 'xmax', 'ymax')
WHOLE = re.compile(r'^(-?\d+)\.0+$')  # a whole number as pandas writes it if others of its column are missing
CROWD_LEFT_OUT = 'box around a crowd (iscrowd), which is no single object'
CROWD = ('1', '1.0', 'true')
SHOWN = 80  # characters of a JSON value in a message

log = logging.getLogger(__name__)

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


@dataclasses.dataclass(frozen=True)
class Annotation:
  """One annotation of a COCO file.

  Attributes:
    label: names it in messages.
    image_id, category_id: as `normalise_id` gives them, so '' if the file has none or one that is no id.
    bbox: (x, y, width, height) in pixels, or None.
    area: in pixels, NaN if the file does not state it.
    crowd: whether it stands for many objects (`iscrowd`).
  """
  label: str
  image_id: str
  category_id: str
  bbox: tuple[float, ...] | None
  area: float
  crowd: bool


@dataclasses.dataclass(frozen=True)
class Coco:
  """The contents of a COCO file, before its boxes are placed.

  Attributes:
    path: of the file.
    class_names: {category id: name}; several ids may share a name.
    file_names: {image id: file_name}. An id of several file names is missing here.
    sizes: {file_name: (width, height)} in pixels; NaN if the file does not state a number, None without a size.
    annotations: all of them.
    rejected: [(file_name, reason), ...] of the images that cannot be used.
  """
  path: pathlib.Path
  class_names: dict[str, str]
  file_names: dict[str, str]
  sizes: dict[str, tuple[float, float] | None]
  annotations: list[Annotation]
  rejected: list[tuple[str, str]]


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


def load_coco(path: pathlib.Path) -> Coco:
  """Reads a COCO file: `images`, `categories`, and `annotations` with (x, y, width, height) in pixels.

  Ids may be whole numbers or texts, and 1, 1.0 and '1' are the same id. An annotation without a box but with polygons
  gets their bounding box, as in COCO.

  Raises:
    ValueError: not such a file, or categories that cannot be told apart.
  """
  text = archives.read_text(path)
  try:
    tree = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not a COCO file with boxes: {type(error).__name__} {error}'[:1000]) from error
  if not isinstance(tree, dict):
    raise ValueError(f'{path} is not a COCO file with boxes: it is a {type(tree).__name__}, not an object '
                     '{"images": [...], "categories": [...], "annotations": [...]}')
  for key in ('images', 'annotations', 'categories'):
    absent = key == 'categories' and not tree.get('annotations') and key not in tree
    items = [] if absent else tree.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
      raise ValueError(f'{path} is not a COCO file with boxes: {key!r} must be a list of objects. Its keys are '
                       f'{archives.escape(", ".join(tree))}'[:1000])
  class_names = read_categories(path, tree.get('categories', []))
  file_names, sizes, rejected = read_images(tree['images'])
  annotations = [read_annotation(position, item) for position, item in enumerate(tree['annotations'])]
  if annotations and not class_names:
    ids = sorted({annotation.category_id for annotation in annotations})
    example = ', '.join(json.dumps({'id': int(name) if name.isdecimal() else name, 'name': 'NAME'}) for name in ids[:5])
    raise ValueError(f'{path} is not a COCO file with boxes: it has {len(annotations)} annotations but no categories. '
                     f'Add "categories": [{example}]'[:1000])
  return Coco(path, class_names, file_names, sizes, annotations, rejected)


def read_categories(path: pathlib.Path, categories: Sequence[dict]) -> dict[str, str]:
  """{category id: name}. Raises ValueError if an id is missing or has two names, or a name is no text."""
  names: dict[str, str] = {}
  for position, category in enumerate(categories):
    where = f'{path} is not a COCO file with boxes: categories[{position}], {describe(category)}, '
    number, name = normalise_id(category.get('id')), category.get('name')
    if isinstance(name, int) and not isinstance(name, bool):
      name = str(name)
    if not number:
      raise ValueError(f'{where}needs an "id": a whole number or a text')
    if not isinstance(name, str) or not name.strip() or archives.GARBLED.search(name):
      raise ValueError(f'{where}needs a "name": a text of one line')
    name = archives.normalise(name.strip())
    if names.setdefault(number, name) != name:
      raise ValueError(f'{where}has the id of {names[number]!r}: every category needs an id of its own')
  return names


def read_images(
    images: Sequence[dict]
) -> tuple[dict[str, str], dict[str, tuple[float, float] | None], list[tuple[str, str]]]:
  """`file_names`, `sizes` and `rejected` of `Coco`."""
  names_of: dict[str, list[str]] = collections.defaultdict(list)
  sizes: dict[str, tuple[float, float] | None] = {}
  rejected = []
  for position, image in enumerate(images):
    number, name, label = normalise_id(image.get('id')), image.get('file_name'), name_item('images', position, image)
    if not isinstance(name, str) or not name.strip():
      rejected.append(('', f'image without file_name: {label} has {describe(name)}'))
      continue
    if not number:
      rejected.append((name, f'image without id: {label} has {describe(image.get("id"))}'))
      continue
    size = tuple(read_number(image.get(side)) for side in ('width', 'height'))
    stated = None if image.get('width') is None and image.get('height') is None else (size[0], size[1])
    if name in names_of[number]:
      rejected.append((name, f'duplicate image id in the table: {label}'))
    else:
      names_of[number].append(name)
    if name in sizes and sizes[name] != stated:
      stated = (math.nan, math.nan)  # its boxes are rejected, since their frame is not known
    sizes[name] = stated
  for number, names in names_of.items():
    if len(names) > 1:
      rejected += [(name, f'duplicate image id in the table: {number} is that of {" and ".join(names)}')
                   for name in names]
  return {number: names[0] for number, names in names_of.items() if len(names) == 1}, sizes, rejected


def read_annotation(position: int, item: dict) -> Annotation:
  """An entry of `annotations`, whose values may be anything."""
  bbox = read_bbox(item.get('bbox'))
  if bbox is None or not any(bbox):  # some programs write zeros beside polygons
    bbox = bound_polygons(item.get('segmentation')) or bbox
  return Annotation(
    label=name_item('annotations', position, item), image_id=normalise_id(item.get('image_id')),
    category_id=normalise_id(item.get('category_id')), bbox=bbox,
    area=read_number(item.get('area')), crowd=str(item.get('iscrowd')).lower() in CROWD)


def name_item(key: str, position: int, item: dict) -> str:
  """An entry of a list in the file, for messages."""
  return f'{key}[{position}]' + (f' (id {describe(item["id"])})' if 'id' in item else '')


def describe(value: object) -> str:
  """A JSON value in a message, cut."""
  try:
    text = json.dumps(value)
  except RecursionError:
    text = f'a {type(value).__name__} in many others'
  return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'


def normalise_id(value: object) -> str:
  """An id as text, '' if it is none. Programs write one id as 1, 1.0 or '1', even within a file."""
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, int | str):
    return ''
  return WHOLE.sub(r'\1', str(value).strip())


def read_number(value: object) -> float:
  """A JSON value as a number; texts of a number count, NaN for anything else."""
  try:
    return float(value) if isinstance(value, int | float | str) else math.nan
  except (ValueError, OverflowError):
    return math.nan


def read_bbox(bbox: object) -> tuple[float, ...] | None:
  """The four numbers of a `bbox`, NaN where one is no number; None if it is no list of four."""
  return tuple(map(read_number, bbox)) if isinstance(bbox, list) and len(bbox) == 4 else None


def bound_polygons(polygons: object) -> tuple[float, ...] | None:
  """The bounding box of COCO polygons, [[x, y, x, y, ...], ...]; None for anything else, also a run-length encoding."""
  if not isinstance(polygons, list) or not polygons or not all(isinstance(polygon, list) for polygon in polygons):
    return None
  numbers = [[read_number(number) for number in polygon] for polygon in polygons]
  if any(len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)) for polygon in numbers):
    return None
  xs, ys = ([number for polygon in numbers for number in polygon[axis::2]] for axis in (0, 1))
  return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


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
                     f'gives a box. First: {archives.escape(drawn.rejected[len(coco.rejected)][1])}'[:1000])
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
                'with x and y of the upper left corner', coco.path, len(clipped), archives.escape(clipped[0]))


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
    raise ValueError(archives.escape(
      f'{coco.path} is not a COCO file with boxes: no box has more than one pixel ({first}). Are they fractions of the '
      'image? Write bbox as x, y, width, height in pixels')[:1000])
  corners = all(0 <= x < right <= width + 1 and 0 <= y < bottom <= height + 1
                for _, (x, y, right, bottom), (width, height) in cases)
  beyond = sum(looks_like_corners(annotation.area, bbox, size) for annotation, bbox, size in cases)
  if corners and beyond >= max(len(cases) / 4, 1):
    raise ValueError(archives.escape(
      f'{coco.path} is not a COCO file with boxes: {beyond} of {len(cases)} boxes fit as left, top, right, bottom but '
      f'not as x, y, width, height ({first}). Write bbox as x, y, width, height')[:1000])


def looks_like_corners(area: float, bbox: Sequence[float], size: tuple[float, float]) -> bool:
  """Whether a bbox, read as x, y, width, height, ends well outside of the image or contradicts the stated area."""
  (x, y, right, bottom), (width, height) = bbox, size
  as_corners, as_sides = (right - x) * (bottom - y), right * bottom
  other_area = math.isclose(area, as_corners, rel_tol=0.01) and not math.isclose(area, as_sides, rel_tol=0.05)
  return other_area or x + right > 1.05 * width + 1 or y + bottom > 1.05 * height + 1


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
  for number, (class_name, (x0, y0, x1, y1)) in enumerate(annotations, 1):
    box: Box | None = None
    reason: str | None = f'unknown box class: {class_name}'
    if class_name in box_classes:
      box, reason = place_box(class_name, x0, y0, x1, y1, width, height)
    boxes += [box] if box else []
    rejected += [f'{reason}: object {number}'] if reason else []
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
