"""TIFF: which page is the picture, and the samples that Pillow misreads or cannot open.

Pillow 13 does not invert 16 and 32 bits in which 0 is white, opens 32 unsigned bits as signed ones, swaps the bytes of
compressed big-endian samples, and halves the depth of 16-bit colours. OpenCV reads all of these, but is wrong on others
(separate planes, two samples), so `decode` checks that its answer has the type and shape that the tags state.
"""
import io
import struct
import warnings
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import TiffImagePlugin

from tfds_builders.common import decoded

SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF, with offsets of 64 bits
SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANES, COLOURS, FORMAT = (
  254, 255, 256, 257, 258, 259, 262, 277, 284, 320, 339)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # PHOTOMETRIC
REDUCED = 0b101  # bits of SUBFILE: a smaller copy of another page, or its transparency mask
OLD_REDUCED = 2  # of OLD_SUBFILE
KINDS = {1: 'u', 2: 'i', 3: 'f'}  # of FORMAT, as NumPy names them
DEPTHS = {'u': (1, 8, 10, 12, 14, 16, 32, 64), 'i': (8, 16, 32, 64), 'f': (32, 64)}  # bits that OpenCV reads
OLD_JPEG = 6  # of COMPRESSION: always YCbCr
SEPARATE = 2  # of PLANES: one plane per sample
MAX_PAGES = 1000  # a chain of pages that a damaged file makes longer is not followed

Tags = Mapping[int, Any]


def choose_page(raw: bytes) -> tuple[bytes, Tags]:
  """The page that is the picture: (the file with this page first, its tags). Reduced copies do not count.

  Raises:
    decoded.Unreadable: several pages could be meant, or none is one.
  """
  pages = read_pages(raw)
  full = {offset: tags for offset, tags in pages.items()
          if not tags.get(SUBFILE, 0) & REDUCED and tags.get(OLD_SUBFILE) != OLD_REDUCED} or pages
  if len(full) != 1:
    raise decoded.Unreadable(f'TIFF of several pages: {len(full)}' if full else 'unreadable image: TIFF without a page')
  (offset, tags), = full.items()
  order = '<' if raw.startswith(b'II') else '>'
  if b'+' in raw[2:4]:
    return raw[:8] + struct.pack(f'{order}Q', offset) + raw[16:], tags
  return raw[:4] + struct.pack(f'{order}I', offset) + raw[8:], tags


def read_pages(raw: bytes) -> dict[int, Tags]:
  """{offset of a page: its tags}, in order. Ends at the first entry of the chain that is no page of an image."""
  header = raw[:16 if b'+' in raw[2:4] else 8]
  pages: dict[int, Tags] = {}
  offset = TiffImagePlugin.ImageFileDirectory_v2(header).next
  while offset and offset not in pages and len(pages) < MAX_PAGES:
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    stream = io.BytesIO(raw)
    stream.seek(offset)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        tags.load(stream)
        page = {tag: tags.get(tag) for tag in tags}
    except Exception:  # Pillow raises many types; what it cannot read is rejected when the pixels are decoded
      break
    if not isinstance(page.get(WIDTH), int) or not isinstance(page.get(HEIGHT), int):
      break
    pages[offset] = page
    offset = tags.next
  return pages


def check_polarity(tags: Tags) -> None:
  """Raises Unreadable if the file does not say what 0 means. Pillow would take it for white in 8 bits only."""
  if PHOTOMETRIC not in tags and tags.get(COMPRESSION) != OLD_JPEG:
    raise decoded.Unreadable('TIFF without PhotometricInterpretation: whether 0 is white is not known')


def is_white_zero(tags: Tags) -> bool:
  return tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def find_depth(tags: Tags) -> tuple[int, int, str]:
  """(samples per pixel, bits of a sample, 'u', 'i' or 'f'); bits are 0 if the samples differ."""
  bits, kinds = (set(tags.get(tag, (1,))) for tag in (BITS, FORMAT))
  kind = KINDS.get(next(iter(kinds)), '') if len(kinds) == 1 else ''
  return int(tags.get(SAMPLES, 1)), bits.pop() if len(bits) == 1 else 0, kind


def fix_palette(tags: Tags, palette: np.ndarray | None) -> np.ndarray | None:
  """(256, 3) uint8 colours. Some programs write them in 8 bits instead of 16, and Pillow takes those for black."""
  entries = np.array(tags.get(COLOURS, ()), int)
  if palette is None or not entries.size or entries.max() > 255:
    return palette
  colours = entries.reshape(3, -1).T.astype(np.uint8)
  return np.pad(colours, ((0, 256 - len(colours)), (0, 0)))


def needs_opencv(tags: Tags) -> bool:
  """Whether Pillow misreads the samples: more than 8 bits, signed, or uncompressed with a plane for one sample."""
  samples, bits, kind = find_depth(tags)
  alone = samples == 1 and tags.get(PLANES) == SEPARATE and tags.get(COMPRESSION, 1) == 1
  return tags.get(PHOTOMETRIC) in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) and (bits > 8 or kind == 'i' or alone)


def decode(raw: bytes, tags: Tags) -> np.ndarray:
  """Samples of a file that `needs_opencv`: HW or HWC, upright, 0 is black; C is 3 (RGB) or 4 (and alpha).

  Raises:
    decoded.Unreadable: an unsupported combination of samples and bits.
  """
  samples, bits, kind = find_depth(tags)
  width, height = tags[WIDTH], tags[HEIGHT]
  values: np.ndarray | None = None
  if bits in DEPTHS.get(kind, ()) and samples in (1, 3, 4) and not (samples > 1 and tags.get(PLANES) == SEPARATE):
    values = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  size = max(1, 2 ** (bits - 1).bit_length() // 8) if bits else 0  # bytes of a sample
  if (values is None or (values.dtype.kind, values.itemsize) != (kind, size)
      or values.shape[:2] not in ((height, width), (width, height))
      or values.shape[2:] != ((samples,) if samples > 1 else ())):
    kinds = {'u': 'unsigned', 'i': 'signed', 'f': 'floating-point'}
    raise decoded.Unreadable(f'TIFF not supported: {samples} samples of {bits} bits, {kinds.get(kind, "mixed")}')
  if 8 < bits < 16:
    values >>= 16 - bits  # OpenCV spreads them to 16
  if samples > 1:
    return values[..., [2, 1, 0, 3][:samples]]
  if not is_white_zero(tags) or bits <= 8:  # OpenCV inverts 8 bits itself
    return values
  return (2**bits - 1) - values if kind == 'u' else -values if kind == 'f' else ~values
