"""Reads the boxes of VOC files, which are XML and describe one image each."""

import pathlib
from collections.abc import Container
from xml.etree import ElementTree

from tfds_builders.common.boxes import Box, place_box

VOC_COORDINATES = ('xmin', 'ymin', 'xmax', 'ymax')


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
