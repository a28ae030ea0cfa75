"""Contact sheets: records as pictures, with masks and boxes drawn and a caption below each."""
import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from tfds_builders.common import dataset

SIDE = 240  # pixels of a picture's longer side
LINE = 13  # of a line of the caption
GAP = 6
COLUMNS = 6
COLOURS = ((255, 170, 0), (0, 200, 255), (120, 255, 90), (255, 90, 180), (190, 140, 255), (255, 240, 80),
           (80, 140, 255), (255, 110, 80))  # of class or kind i, from the first on again where there are more
UNANNOTATED = (110, 110, 160)
TINT = 0.35
PAPER, INK = (18, 18, 22), (235, 235, 225)
FONT = PIL.ImageFont.load_default(10)


def decode(encoded):
  """PNG or JPEG bytes to HW uint8."""
  return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)


def colour(number):
  return COLOURS[number % len(COLOURS)]


def draw(chosen, about):
  """A sheet of [(split, record)] whose images and masks are encoded; `about` is the dataset's metadata."""
  tiles = [draw_tile(split, record, about) for split, record in chosen]
  legend = [(name, colour(value - 1)) for value, name in enumerate(about['mask']) if value]
  legend += [(name, colour(kind)) for kind, name in enumerate(about['box_classes'])]
  rows = [tiles[start:start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
  heights = [max(tile.height for tile in row) + GAP for row in rows]
  sheet = PIL.Image.new('RGB', (COLUMNS * (SIDE + GAP), sum(heights) + LINE + GAP), PAPER)
  for place, row in enumerate(rows):
    for column, tile in enumerate(row):
      sheet.paste(tile, (column * (SIDE + GAP), sum(heights[:place])))
  pen, x = PIL.ImageDraw.Draw(sheet), GAP
  for name, its in legend:
    pen.text((x, sum(heights)), name, its, FONT)
    x += pen.textlength(name, FONT) + 2 * GAP
  return sheet


def draw_tile(split, record, about):
  """One record as an RGB picture, SIDE pixels on its longer side, and below it three lines of words."""
  grey = decode(record['image'])
  fit = SIDE / max(grey.shape)
  size = tuple(max(1, round(side * fit)) for side in grey.shape[::-1])
  picture = np.repeat(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if fit < 1 else cv2.INTER_LINEAR)[..., None],
                      3, axis=-1)
  if 'mask' in record:
    picture = tint(picture, cv2.resize(decode(record['mask']), size, interpolation=cv2.INTER_NEAREST_EXACT))
  tile = PIL.Image.new('RGB', (SIDE, size[1] + 3 * LINE), PAPER)
  tile.paste(PIL.Image.fromarray(picture))
  pen = PIL.ImageDraw.Draw(tile)
  if 'objects' in record:
    for kind, box in zip(record['objects']['class_id'], record['objects']['box'], strict=True):
      y0, x0, y1, x1 = box * np.array([*size[::-1], *size[::-1]])
      pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour(kind))
  for line, words in enumerate(caption(split, record, about)):
    pen.text((1, size[1] + line * LINE), shorten(words, pen), INK, FONT)
  return tile


def tint(picture_HWC, mask_HW):
  """Mixes the colour of its class into each pixel; background stays, what nobody annotated gets a colour of its own."""
  mixed = picture_HWC.astype(np.float32)
  for value in np.unique(mask_HW):
    if value:
      its = UNANNOTATED if value == dataset.UNANNOTATED else colour(value - 1)
      mixed[mask_HW == value] = (1 - TINT) * mixed[mask_HW == value] + TINT * np.array(its, np.float32)
  return mixed.astype(np.uint8)


def caption(split, record, about):
  """Three lines: what is stated, of whom, which image."""
  stated = []
  if 'present' in record:
    stated = [name for name, present in zip(about['findings'], record['present'], strict=True) if present]
    stated = stated or ['no finding' if record['label_mask'].all() else 'no finding stated']
  if 'value' in record:
    stated.append(f'{record["value"][0]:g} {about["value"]["unit"]}')
  age = f'{record["age"]:.0f} y' if record['age'] == record['age'] else ''
  whom = [split, *(record[field].decode() for field in ('part', 'view', 'sex')), age]
  return ', '.join(stated), ' '.join(filter(None, whom)), record['image_id'].decode()


def shorten(words, pen):
  """Cuts the beginning off until the words fit: the end of a path tells more."""
  if pen.textlength(words, FONT) <= SIDE:
    return words
  while pen.textlength(f'...{words}', FONT) > SIDE:
    words = words[1:]
  return f'...{words}'
