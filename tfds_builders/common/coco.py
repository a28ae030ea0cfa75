"""Reads COCO files. `coco_boxes.py` converts their boxes."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

from tfds_builders.common import plain_text, tables

CROWD = ('1', '1.0', 'true')
SHOWN = 80  # characters of a JSON value in a message


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


def load_coco(path: pathlib.Path) -> Coco:
  """Reads a COCO file: `images`, `categories`, and `annotations` with (x, y, width, height) in pixels.

  Ids may be whole numbers or texts, and 1, 1.0 and '1' are the same id. An annotation without a box but with polygons
  gets their bounding box, as in COCO.

  Raises:
    ValueError: not such a file, or categories that cannot be told apart.
  """
  text = plain_text.read_text(path)
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
                       f'{plain_text.escape(", ".join(tree))}'[:1000])
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
    if not isinstance(name, str) or not name.strip() or plain_text.GARBLED.search(name):
      raise ValueError(f'{where}needs a "name": a text of one line')
    name = plain_text.normalise(name.strip())
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
  return tables.drop_point_zero(str(value).strip())


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
