"""Decodes image files of any kind. Anything wrong with a file raises `decoded.Unreadable`."""
import dataclasses
import io
import pathlib
import struct
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image

from tfds_builders.common import decoded, tiff
from tfds_builders.common.decoded import Picture, Unreadable, check_size

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'JPEG2000')  # Pillow has more; one of them runs Ghostscript
ANIMATED = ('GIF', 'WEBP', 'PNG')  # formats whose frames are moments. A JPEG has smaller copies and the like beside it
COLOURS = ('RGB', 'RGBA', 'LA')  # Pillow's modes that halve the depth of 16-bit samples
BMP_BITS, BMP_COLOURS = 28, 46  # places in the header: bits of a pixel, number of colours (0 is all)

# {EXIF orientation: function from HW or HWC as stored to upright}. 1, and values that the standard does not have, stay.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  2: lambda image: image[:, ::-1],
  3: lambda image: image[::-1, ::-1],
  4: lambda image: image[::-1],
  5: lambda image: image.swapaxes(0, 1),
  6: lambda image: np.rot90(image, -1),
  7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
  8: np.rot90,
}

# Pillow's own limit would refuse smaller images than ours. It still refuses twice this number before decoding.
PIL.Image.MAX_IMAGE_PIXELS = decoded.MAX_PIXELS
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
# OpenCV writes to stderr what it cannot read. Such a file is rejected with a reason.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise Unreadable(f'unreadable file: {error.strerror}') from error


def decode(raw: bytes) -> Picture:
  """Bytes of a file to its samples; raises Unreadable."""
  if raw[128:132] == b'DICM':
    from tfds_builders.common import dicom
    return Picture(dicom.decode(raw), 'DICOM')
  if not raw:
    raise Unreadable('unreadable image: the file is empty')
  try:
    if raw[:4] not in tiff.SIGNATURES:
      return decode_by_pillow(raw)
    raw, tags = tiff.choose_page(raw)
    check_size(tags[tiff.WIDTH], tags[tiff.HEIGHT])
    tiff.check_polarity(tags)
    white, bits = tiff.is_white_zero(tags), tiff.find_depth(tags)[1]
    if tiff.needs_opencv(tags):
      return Picture(tiff.decode(raw, tags), 'TIFF', bits, white_is_zero=white)
    picture = decode_by_pillow(raw)
    palette = tiff.fix_palette(tags, picture.palette)
    return dataclasses.replace(picture, bits=bits, palette=palette, white_is_zero=white, reusable=False)
  except (Unreadable, MemoryError):
    raise
  except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, ...
    raise Unreadable(f'unreadable image: {type(error).__name__} {error}'.split(' <')[0]) from error


def decode_by_pillow(raw: bytes) -> Picture:
  image = PIL.Image.open(io.BytesIO(raw), formats=FORMATS)
  check_size(image.width, image.height)
  if image.format == 'BMP' and image.mode == '1' and raw[BMP_BITS] > 1:  # Pillow would take each byte for eight pixels
    image = PIL.Image.open(io.BytesIO(raw[:BMP_COLOURS] + bytes(4) + raw[BMP_COLOURS + 4:]), formats=FORMATS)
  kind, mode, bits = str(image.format), image.mode, 8
  frames = getattr(image, 'n_frames', 1) if kind in ANIMATED else 1
  if frames > 1:
    raise Unreadable(f'animation of several frames: {frames}')
  if kind == 'PNG':
    check_png(raw)
    bits = raw[24]
  image.load()
  if mode == 'CMYK' and kind == 'JPEG' and 'adobe' not in image.info:
    raise Unreadable('CMYK JPEG without an Adobe marker: whether 0 is white is not known')
  if mode not in ('1', 'L', 'LA', 'La', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr') and mode[0] not in 'IF':
    raise Unreadable(f'colour space not supported: {mode}')
  plain = {'CMYK': 'RGB', 'YCbCr': 'RGB', 'La': 'LA'}.get(mode)
  values = np.asarray(image.convert(plain) if plain else image)
  if mode == '1':
    values, bits = values.astype(np.uint8) * np.uint8(255), 1
  elif mode in COLOURS and (bits == 16 or kind == 'JPEG2000' and find_jpeg2000_bits(raw) > 8):
    values, bits = decode_deep(raw, values), 16
  palette = None
  if mode in ('P', 'PA'):
    palette = np.reshape(np.array(image.getpalette('RGB'), np.uint8), (-1, 3))
    palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
    values = values if mode == 'P' else values[..., 0]
  # Pillow turns TIFF itself.
  turn = None if kind == 'TIFF' else UPRIGHT.get(read_orientation(image))
  reusable = mode == 'L' and not turn and not {'transparency', 'exif'} & set(image.info)
  return Picture(turn(values) if turn else values, kind, bits, palette, reusable=reusable)


def read_orientation(image: PIL.Image.Image) -> int:
  """Orientation from EXIF, or else from XMP, of a Pillow image; 1 if it has none, or none that can be read."""
  try:
    return image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow raises many types; other readers ignore damaged EXIF, too
    return 1


def read_size(path: pathlib.Path) -> tuple[int, int]:
  """(height, width) of the upright image, without decoding its pixels where that is possible. Raises Unreadable."""
  raw = read_bytes(path)
  if raw[128:132] == b'DICM':
    from tfds_builders.common import dicom
    return dicom.read_size(path)
  try:
    if raw[:4] in tiff.SIGNATURES:
      tags = tiff.choose_page(raw)[1]
      (width, height), turn = (tags[tiff.WIDTH], tags[tiff.HEIGHT]), tags.get(PIL.ExifTags.Base.Orientation, 1)
    else:
      image = PIL.Image.open(io.BytesIO(raw), formats=FORMATS)
      (width, height), turn = image.size, read_orientation(image)
  except Exception as error:  # Pillow's plug-ins raise many types
    raise Unreadable(f'unreadable image: {type(error).__name__} {error}'.split(' <')[0]) from error
  return (width, height) if turn in (5, 6, 7, 8) else (height, width)


def find_jpeg2000_bits(raw: bytes) -> int:
  """Bits of a sample from the SIZ segment of a JPEG 2000 stream; its highest bit is the sign."""
  return (raw[raw.index(b'\xff\x4f\xff\x51') + 42] & 0x7F) + 1


def decode_deep(raw: bytes, values: np.ndarray) -> np.ndarray:
  """All bits of the 16-bit samples of which Pillow gave the upper half; HWC uint16, not turned."""
  deep: np.ndarray | None = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  if deep is None or deep.dtype != np.uint16 or deep.ndim != 3 or deep.shape[:2] != values.shape[:2]:
    raise Unreadable(f'several samples of 16 bits not supported: {values.shape[-1]}')
  deep = deep[..., [2, 1, 0, 3][:deep.shape[2]]][..., :values.shape[2]]
  if raw.startswith(b'\x89PNG') and not np.array_equal(deep >> 8, values):
    raise Unreadable('unreadable image: OpenCV and Pillow disagree')
  return deep


def check_png(raw: bytes) -> None:
  """Raises Unreadable if a PNG chunk is truncated or its checksum is wrong; Pillow does not check either."""
  start, name = 8, b''
  while name != b'IEND':
    if start + 12 > len(raw):
      raise Unreadable('unreadable image: truncated PNG')
    length, name = struct.unpack_from('>I4s', raw, start)
    end = start + 8 + length
    # Chunks whose first letter is lower case are metadata. Some programs edit them and leave the checksum stale.
    if name[0] < 97 and raw[end:end + 4] != struct.pack('>I', zlib.crc32(memoryview(raw)[start + 4:end])):
      raise Unreadable(f'unreadable image: the PNG is damaged or incomplete (checksum of {name.decode("latin-1")})')
    start = end + 4
