"""Undamaged datasets of your own, written in ways that some readers get wrong.

Each case knows what must come out of it. A build that succeeds with other pixels, masks, boxes or labels is a fault; so
is the refusal of a dataset that can be read.
"""

import dataclasses
import io
import json
import pathlib
import struct
import types
from collections.abc import Callable

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import pydicom

from benchmarks.fuzz import judge, pictures, values
from benchmarks.fuzz.values import Report, Run
from tfds_builders.common import images
from tfds_builders.custom import custom

NAME, IMAGES = 'clinic', 6
HEIGHT, WIDTH = 24, 36  # px
CHARACTERS = ' !#$%&\'()+,-.;=@[]^_`{}~*?:|<>"äß中🩻'  # in the names of files
ENDINGS = {'JPEG': 'jpg', 'PNG': 'png', 'TIFF': 'tif', 'WEBP': 'webp', 'DICOM': 'dcm'}


@dataclasses.dataclass
class Dataset:
  """What is written, image by image, and what must be read.

  Attributes:
    write_image: (grey) -> (bytes of a file, the grey image that they must give).
    write_mask: (foreground) -> bytes, for a dataset of two mask classes; None without masks.
    coco: changes a COCO file in place; None without boxes.
    write_table: text -> bytes of labels.csv.
    stem: (number) -> name of an image without its ending, `ending`.
    boxed: whether the images keep their box.
    refused: words of the line with which the build must refuse; '' if it must read.
    tolerance: of the grey values.
  """
  write_image: Callable = lambda grey: (encode(grey), grey)
  write_mask: Callable | None = None
  coco: Callable | None = None
  write_table: Callable = str.encode
  stem: Callable = str
  boxed: bool = True
  refused: str = ''
  tolerance: int = 1
  ending: str = 'png'


def encode(picture: np.ndarray | PIL.Image.Image, kind: str = 'PNG', **options) -> bytes:
  out = io.BytesIO()
  image = PIL.Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
  image.save(out, kind, **options)
  return out.getvalue()


def write_tiff(stored: np.ndarray, **tags: int) -> bytes:
  """An uncompressed grey TIFF of HW unsigned samples; `tags` such as t262=0."""
  height, width = stored.shape
  entries = {256: width, 257: height, 258: 8 * stored.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
             279: stored.nbytes} | {int(name[1:]): value for name, value in tags.items()}
  rows = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in sorted(entries.items()))
  return b'II*\0' + struct.pack('<I', 8 + stored.nbytes) + stored.tobytes() + struct.pack(
    '<H', len(entries)) + rows + bytes(4)


def write_dicom(stored: np.ndarray, **elements: object) -> bytes:
  header = pydicom.dcmread(io.BytesIO(pictures.wrap(stored)))
  for name, value in elements.items():
    setattr(header, name, value)
  out = io.BytesIO()
  header.save_as(out, enforce_file_format=True)
  return out.getvalue()


def orient(rng: np.random.Generator) -> Dataset:
  """An orientation in EXIF, or in the tag of TIFF. Pillow says what is upright."""
  kind, orientation = values.pick(rng, ('JPEG', 'PNG', 'TIFF', 'WEBP')), int(rng.integers(0, 10))
  exif = PIL.Image.Exif()
  exif[PIL.ExifTags.Base.Orientation] = orientation

  def write(grey):
    image = PIL.Image.fromarray(grey)
    image.getexif()[PIL.ExifTags.Base.Orientation] = orientation
    shown = np.asarray(PIL.ImageOps.exif_transpose(image))
    if kind == 'TIFF':
      return write_tiff(grey, t274=orientation), shown
    options = {'JPEG': {'quality': 100}, 'WEBP': {'lossless': True}}.get(kind, {})
    return encode(image.convert('RGB') if kind == 'WEBP' else image, kind, exif=exif, **options), shown
  return Dataset(write, ending=ENDINGS[kind], tolerance=4 if kind == 'JPEG' else 1)


def invert(rng: np.random.Generator) -> Dataset:
  """White or black is zero, in TIFF and DICOM of 8 and 16 bits."""
  white, deep = (bool(rng.integers(2)) for _ in range(2))
  kind = values.pick(rng, ('TIFF', 'DICOM'))

  def write(grey):
    stored = grey.astype(np.uint16) * 100 + 50 if deep else grey
    shown = rescale(stored) if deep else stored
    raw = write_tiff(stored, t262=int(not white)) if kind == 'TIFF' else write_dicom(
      stored, PhotometricInterpretation=f'MONOCHROME{2 - white}')
    return raw, 255 - shown if white else shown
  return Dataset(write, ending=ENDINGS[kind])


def move_bits(rng: np.random.Generator) -> Dataset:
  """DICOM values anywhere in their words, with other bits in use or sign bits missing."""
  bits = int(rng.integers(8, 15))
  shift, signed, white = int(rng.integers(0, 17 - bits)), bool(rng.integers(2)), bool(rng.integers(2))
  junk = bool(rng.integers(2)) and shift + bits < 16

  def write(grey):
    meant = grey.astype(np.int64) * (2**bits - 1) // 255 - (2 ** (bits - 1) if signed else 0)
    words = (meant & (2**bits - 1)) << shift
    words[::3] |= (1 << 15) * junk  # an overlay
    words = words.astype(np.uint16).view(np.int16 if signed else np.uint16)
    raw = write_dicom(words, BitsStored=bits, HighBit=shift + bits - 1,
                      PhotometricInterpretation=f'MONOCHROME{2 - white}')
    return raw, 255 - rescale(meant) if white else rescale(meant)
  return Dataset(write, ending='dcm')


def rescale(stored: np.ndarray) -> np.ndarray:
  """The 0.5th and 99.5th percentiles become 0 and 255, as the documentation says of more than 8 bits."""
  low, high = np.percentile(stored, (0.5, 99.5))
  return np.rint(np.clip((stored - low) / (high - low), 0, 1) * 255)


def mark(rng: np.random.Generator) -> Dataset:
  """A mask as palette, grey, colour or opacity, of 1, 8 or 16 bits."""
  def paint(foreground, colour, alpha=None):
    painted = foreground[..., None] * np.array(colour, np.uint8)
    return painted if alpha is None else np.dstack([painted, alpha])

  def with_palette(mark, colours):
    image = PIL.Image.fromarray(mark)
    image = PIL.Image.frombytes('P', image.size, mark.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return encode(image, values.pick(rng, ('PNG', 'GIF', 'BMP', 'TIFF')))
  colour = tuple(int(value) for value in np.eye(3, dtype=int)[rng.integers(3)] * rng.integers(60, 256))
  scale = int(rng.integers(128, 256))
  return Dataset(write_mask=values.pick(rng, (
    lambda mark: encode(mark), lambda mark: encode(mark * np.uint8(scale)),
    lambda mark: encode(PIL.Image.fromarray(mark > 0)),
    lambda mark: encode(mark.astype(np.uint16)), lambda mark: encode(mark.astype(np.uint16) * values.pick(
      rng, (255, 256, 65535))),
    lambda mark: write_tiff(255 - mark * np.uint8(255), t262=0),
    lambda mark: write_tiff(mark.astype(np.uint16) * 65535),
    lambda mark: with_palette(mark, [(0, 0, 0), colour]), lambda mark: with_palette(mark, [(0, 0, 0), (0, 0, 0)]),
    lambda mark: with_palette(mark, [(0, 0, 0), (255, 255, 255)]),
    lambda mark: encode(paint(mark, colour)), lambda mark: encode(paint(mark, colour, np.full_like(mark, 255))),
    lambda mark: encode(paint(mark, colour, mark * np.uint8(255))),
    lambda mark: encode(paint(mark * 0, colour, mark * np.uint8(255))),
    lambda mark: encode(np.dstack([mark * np.uint8(255), np.full_like(mark, 255)])))))


def annotate(rng: np.random.Generator) -> Dataset:
  """A COCO file with other ids, sizes, categories or crowds."""
  def change(key, **fields):
    def edit(coco):
      for item in coco[key]:
        item.update({name: make(item) for name, make in fields.items()})
    return edit
  swap = change('images', width=lambda item: HEIGHT, height=lambda item: WIDTH)
  return values.pick(rng, (
    Dataset(coco=change('annotations')), Dataset(coco=swap, refused='another shape'),
    Dataset(coco=lambda coco: coco.update(categories=[]), refused='no categories'),
    Dataset(coco=lambda coco: coco.pop('categories'), refused='categories'),
    Dataset(coco=change('annotations', iscrowd=lambda item: values.pick(rng, (1, '1', True))), boxed=False),
    Dataset(coco=change('annotations', image_id=lambda item: str(item['image_id']), category_id=lambda item: '1.0')),
    Dataset(coco=change('images', width=lambda item: 2 * WIDTH, height=lambda item: 2 * HEIGHT)),
    Dataset(coco=change('images', width=lambda item: None, height=lambda item: None)),
    Dataset(coco=change('images', file_name=lambda item: 'C:\\clinic\\images\\' + item['file_name'])),
    Dataset(coco=change('annotations', bbox=lambda item: [value / 100 for value in item['bbox']]),
            refused='fractions of the image')))


def tabulate(rng: np.random.Generator) -> Dataset:
  """A table in another encoding, with other delimiters, line ends, or empty rows and columns."""
  delimiter, end = values.pick(rng, (',', ';', '\t', '|')), values.pick(rng, ('\n', '\r\n', '\r'))
  encoding = values.pick(rng, ('utf-8', 'utf-8-sig', 'utf-16', 'utf-32', 'latin-1', 'utf-16-le'))
  more = values.pick(rng, ('', ',', ',,'))

  def write(text):
    lines = [line + more for line in text.split('\n')[:-1]]
    lines += [',' * lines[0].count(',')] * 2 if rng.integers(2) else []
    text = end.join([*lines, '']).replace(',', delimiter)
    first = f'sep={delimiter}{end}' if rng.integers(2) else ''
    return (first + text).encode(encoding)
  return Dataset(write_table=write, stem='ä{}'.format,
                 refused='is not UTF-8 text' if encoding in ('latin-1', 'utf-16-le') else '')


def name(rng: np.random.Generator) -> Dataset:
  """Characters of every sort in the paths of images."""
  before, behind = (''.join(values.pick(rng, CHARACTERS) for _ in range(3)) for _ in range(2))
  return Dataset(stem=lambda number: f'f{before}g/a{behind}b{number}', write_mask=encode, coco=lambda coco: None)


WAYS = {'orientation': orient, 'photometric interpretation': invert, 'bit position': move_bits, 'mask': mark,
        'COCO file': annotate, 'table': tabulate, 'characters in paths': name}


def make(folder: pathlib.Path) -> Run:
  """Cases of datasets that must be read rightly."""
  return run


def run(rng: np.random.Generator, case: pathlib.Path, report: Report) -> str:
  way = values.pick(rng, tuple(WAYS))
  report((NAME, f'read: {way}'))
  wanted = WAYS[way](rng)
  truth = write(rng, case / 'archives' / NAME, wanted)
  try:
    records = read(case)
  except ValueError as error:
    judge.judge_line(str(error))
    judge.demand(wanted.refused and wanted.refused in str(error), f'{way}: refused by {error}')
    return 'refused'
  judge.demand(not wanted.refused, f'{way}: read, although it must be refused: {wanted.refused}')
  judge.demand(records.keys() == truth.keys(), f'{way}: records {sorted(records)}, not {sorted(truth)}')
  for image_id, (grey, foreground, box, label) in truth.items():
    compare(way, records[image_id], grey, foreground, box, label, wanted.tolerance)
  return 'whole'


def write(rng: np.random.Generator, root: pathlib.Path, wanted: Dataset) -> dict[str, tuple]:
  """Writes a dataset. Returns {image_id: (grey, foreground or None, box or None, label)}."""
  lines, truth = ['image,patient,fracture'], {}
  coco = {'images': [], 'annotations': [], 'categories': [{'id': 1, 'name': 'plate'}]}
  for number in range(IMAGES):
    stem = wanted.stem(number)
    grey = cv2.resize(rng.integers(0, 256, (4, 6), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    foreground = np.zeros((HEIGHT, WIDTH), np.uint8)
    top, left = (int(value) for value in rng.integers(1, 9, 2))
    foreground[top:top + 10, left:left + 20] = 1
    raw, shown = wanted.write_image(grey)
    save(root / f'images/{stem}.{wanted.ending}', raw)
    if wanted.write_mask:
      save(root / f'masks/{stem}.png', wanted.write_mask(foreground))
    quoted = f'{stem}.{wanted.ending}'.replace('"', '""')
    lines.append(f'"{quoted}",p{number},{number % 2}')
    coco['images'].append({'id': number, 'file_name': f'{stem}.{wanted.ending}', 'width': WIDTH, 'height': HEIGHT})
    coco['annotations'].append({'id': number, 'image_id': number, 'category_id': 1, 'bbox': [left, top, 20, 10]})
    box = (top / HEIGHT, left / WIDTH, (top + 10) / HEIGHT, (left + 20) / WIDTH)
    truth[stem] = shown, foreground if wanted.write_mask else None, box if wanted.coco else None, number % 2
  save(root / 'labels.csv', wanted.write_table('\n'.join(lines) + '\n'))
  if wanted.coco:
    wanted.coco(coco)
    width = coco['images'][0]['width']
    if width == 2 * WIDTH:  # the boxes are in the pixels of the stated size
      for one in coco['annotations']:
        one['bbox'] = [2 * value for value in one['bbox']]
    save(root / 'boxes.json', json.dumps(coco).encode())
  return {stem: (grey, mark, box if wanted.boxed else (), label) for stem, (grey, mark, box, label) in truth.items()}


def save(path: pathlib.Path, raw: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(raw)


def read(case: pathlib.Path) -> dict[str, dict]:
  """Records of a build that writes none, by image_id."""
  builder = custom.make_builder(NAME, custom.find_root(NAME, case / 'archives'))(
    data_dir=case / 'prepared', config='256', file_format='array_record')
  builder.tolerated = 0
  pathlib.Path(builder.data_dir).mkdir(parents=True)
  splits = builder._split_generators(types.SimpleNamespace(manual_dir=case / 'archives'))
  records = dict(record for examples in splits.values() for record in examples)
  for image_id, record in records.items():
    judge.judge_record(image_id, record, NAME, builder.info.metadata)
  return records


def compare(way: str, record: dict, grey: np.ndarray, foreground: np.ndarray | None, box: tuple | None, label: int,
            tolerance: int) -> None:
  """Raises Fault if a record differs from the truth."""
  found = images.decode_stored(record['image'])
  judge.demand(found.shape == grey.shape, f'{way}: an image of {found.shape}, not {grey.shape}')
  worst = np.abs(found.astype(float) - grey).max()
  judge.demand(worst <= tolerance, f'{way}: greys differ by {worst}')
  judge.demand(record['present'] == [float(label)], f'{way}: label {record["present"]}, not {label}')
  if foreground is not None:
    judge.demand(np.array_equal(images.decode_stored(record['mask']), foreground), f'{way}: another mask')
  if box is not None:
    boxes = [(one['box'].ymin, one['box'].xmin, one['box'].ymax, one['box'].xmax) for one in record['objects']]
    right = len(boxes) == bool(box) and np.allclose(boxes, [box] if box else [])
    judge.demand(right, f'{way}: boxes {boxes}, not {box}')
