"""Contact sheets: pictures of records, with masks and boxes drawn in and a caption below each."""
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from tfds_builders.common import images, label_columns

SIDE = 240  # longer side of a picture, pixels
LINE = 13  # height of a caption line, pixels
GAP = 6
COLUMNS = 6
COLOURS = ((255, 170, 0), (0, 200, 255), (120, 255, 90), (255, 90, 180), (190, 140, 255), (255, 240, 80),
           (80, 140, 255), (255, 110, 80))  # of class i; repeated if there are more classes
UNANNOTATED_COLOUR = (110, 110, 160)
TINT = 0.35
PAPER, INK = (18, 18, 22), (235, 235, 225)
FONT = PIL.ImageFont.load_default(10)


def colour(class_id: int) -> tuple[int, int, int]:
  return COLOURS[class_id % len(COLOURS)]


def draw(chosen: Sequence[tuple[str, dict[str, Any]]], metadata: Mapping[str, Any]) -> PIL.Image.Image:
  """Draws a sheet.

  Args:
    chosen: [(split, record), ...]; images and masks of the records are encoded.
    metadata: of the dataset.
  """
  tiles = [draw_tile(split, record, metadata) for split, record in chosen]
  legend = [(name, colour(value - 1)) for value, name in enumerate(metadata['mask']) if value]
  legend += [(name, colour(class_id)) for class_id, name in enumerate(metadata['box_classes'])]
  rows = [tiles[start:start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
  heights = [max(tile.height for tile in row) + GAP for row in rows]
  sheet = PIL.Image.new('RGB', (COLUMNS * (SIDE + GAP), sum(heights) + LINE + GAP), PAPER)
  for number, row in enumerate(rows):
    for column, tile in enumerate(row):
      sheet.paste(tile, (column * (SIDE + GAP), sum(heights[:number])))
  pen, x = PIL.ImageDraw.Draw(sheet), float(GAP)
  for name, name_colour in legend:
    pen.text((x, sum(heights)), name, name_colour, FONT)
    x += pen.textlength(name, FONT) + 2 * GAP
  return sheet


def draw_tile(split: str, record: dict[str, Any], metadata: Mapping[str, Any]) -> PIL.Image.Image:
  """Draws one record, SIDE pixels on its longer side, with three lines of caption below."""
  grey = images.decode_stored(record['image'])
  zoom = SIDE / max(grey.shape)
  size = tuple(max(1, round(side * zoom)) for side in grey.shape[::-1])
  picture = np.repeat(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)[..., None],
                      3, axis=-1)
  if 'mask' in record:
    mask = cv2.resize(images.decode_stored(record['mask']), size, interpolation=cv2.INTER_NEAREST_EXACT)
    picture = tint(picture, mask)
  tile = PIL.Image.new('RGB', (SIDE, size[1] + 3 * LINE), PAPER)
  tile.paste(PIL.Image.fromarray(picture))
  pen = PIL.ImageDraw.Draw(tile)
  if 'objects' in record:
    for class_id, box in zip(record['objects']['class_id'], record['objects']['box'], strict=True):
      y0, x0, y1, x1 = box * np.array([*size[::-1], *size[::-1]])
      pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour(class_id))
  for number, line in enumerate(caption(split, record, metadata)):
    pen.text((1, size[1] + number * LINE), shorten(line, pen), INK, FONT)
  return tile


def tint(picture_HWC: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
  """Blends the colour of its class into each pixel. Background stays grey; unannotated pixels have their own colour."""
  mixed = picture_HWC.astype(np.float32)
  for value in np.unique(mask_HW):
    if value:
      class_colour = UNANNOTATED_COLOUR if value == label_columns.UNANNOTATED else colour(value - 1)
      mixed[mask_HW == value] = (1 - TINT) * mixed[mask_HW == value] + TINT * np.array(class_colour, np.float32)
  return mixed.astype(np.uint8)


def caption(split: str, record: dict[str, Any], metadata: Mapping[str, Any]) -> tuple[str, str, str]:
  """Three lines: the labels; split, part, view, sex and age; the image_id."""
  labels = []
  if 'present' in record:
    labels = [name for name, present in zip(metadata['findings'], record['present'], strict=True) if present]
    absent = [name for name, known in zip(metadata['findings'], record['label_mask'], strict=True) if known]
    labels = labels or [f'{absent[0]} absent' if len(absent) == 1 else f'none of {len(absent)} findings' if absent
                        else 'no known finding']
  if 'value' in record:
    labels.append(f'{record["value"][0]:g} {metadata["value"]["unit"]}')
  age = f'{record["age"]:.0f} y' if record['age'] == record['age'] else ''
  details = [split, *(record[field].decode() for field in ('part', 'view', 'sex')), age]
  return ', '.join(labels), ' '.join(filter(None, details)), record['image_id'].decode()


def shorten(line: str, pen: PIL.ImageDraw.ImageDraw) -> str:
  """Cuts the beginning until the line fits: the end of a path says more."""
  if pen.textlength(line, FONT) <= SIDE:
    return line
  while pen.textlength(f'...{line}', FONT) > SIDE:
    line = line[1:]
  return f'...{line}'
