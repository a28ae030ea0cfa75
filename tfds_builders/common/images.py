"""Reads image files as one grey channel of 8 bits. Anything wrong with a file raises `Unreadable`."""
import io
import pathlib
import struct
import warnings
import zlib

import cv2
import numpy as np
import PIL.Image

from tfds_builders.common import archives

MAX_REASON = 300  # characters
MAX_PIXELS = 100_000_000  # the largest film scans have about 30 million; decoding this many in colour takes 0.9 GB
FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'JPEG2000')  # Pillow has more; one of them runs Ghostscript
PLAIN_UP_TO = 256  # pixels of the longer side; such images are stored uncompressed: twice the bytes, fast to decode
PERCENTILES = (0.5, 99.5)  # mapped to 0 and 255 in images of more than 8 bits
ROWS = 256  # rows that are rescaled at a time, since float64 takes eight bytes per pixel

# Pillow's own limit would refuse smaller images than ours. It still refuses twice this number before decoding.
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)


class Unreadable(ValueError):
  """The file is not a complete image. The reason may quote the file, so it is escaped to one line and cut."""

  def __init__(self, reason: str) -> None:
    super().__init__(archives.escape(reason)[:MAX_REASON])


def read(path: pathlib.Path) -> np.ndarray:
  """Reads an image file as grey.

  Pillow decodes, since OpenCV returns the readable part of a truncated file without an error.

  Returns:
    HW uint8. RGBA and LA give their first channel; RGB, palette and CMYK their luma. An image of more than 8 bits is
    rescaled so that its 0.5th and 99.5th percentiles become 0 and 255. For DICOM see `dicom.decode`.

  Raises:
    Unreadable: not an image, truncated, damaged, or more than MAX_PIXELS pixels according to the header.
  """
  return to_grey(decode(read_bytes(path)))


def read_stored(
    path: pathlib.Path, longest: int | None = None, keep_jpeg: bool = False) -> tuple[bytes, tuple[int, int]]:
  """Reads an image file as the bytes that a record stores.

  Args:
    path: of the file.
    longest: the longer side, in pixels, is reduced to this; None keeps any size. Images are never enlarged.
    keep_jpeg: whether a grey JPEG that is not resized keeps its bytes.

  Returns:
    (bytes, (height, width)). The bytes are a one-channel 8-bit PNG, uncompressed up to PLAIN_UP_TO pixels. A larger
    file that already is such a PNG and is not resized keeps its bytes; so does a grey JPEG with keep_jpeg.

  Raises:
    Unreadable: as `read`.
  """
  raw = read_bytes(path)
  image = decode(raw)
  grey = downscale(to_grey(image), longest)
  untouched = grey.shape == (image.height, image.width) and image.mode == 'L'
  plain = not {'transparency', 'exif'} & set(image.info)  # other readers may apply either
  small = max(grey.shape) <= PLAIN_UP_TO
  png = image.format == 'PNG' and not small and opencv_agrees(raw, grey)
  if untouched and plain and (png or image.format == 'JPEG' and keep_jpeg):
    return raw, grey.shape
  return encode(grey, plain=small), grey.shape


def opencv_agrees(raw: bytes, grey: np.ndarray) -> bool:
  """Whether OpenCV decodes a PNG to the same pixels as Pillow; one that breaks the standard may differ."""
  decoded = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  return decoded is not None and np.array_equal(decoded, grey)


def decode_stored(encoded: bytes) -> np.ndarray:
  """HW uint8 of the PNG or JPEG bytes in a record.

  Raises:
    Unreadable: damaged bytes.
  """
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
  if image is None:
    raise Unreadable('unreadable image in a record')
  return image


def read_bytes(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise Unreadable(f'unreadable file: {error.strerror}') from error


def decode(raw: bytes) -> PIL.Image.Image:
  """Bytes of a file to a loaded Pillow image; raises Unreadable."""
  if raw[128:132] == b'DICM':
    from tfds_builders.common import dicom
    return PIL.Image.fromarray(dicom.decode(raw))
  try:
    image = PIL.Image.open(io.BytesIO(raw), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
      raise Unreadable(f'image too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS}')
    if image.format == 'PNG':
      check_png(raw)
    image.load()
    return image
  except (Unreadable, MemoryError):
    raise
  except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error, ...
    raise Unreadable(f'unreadable image: {type(error).__name__} {error}'[:200].split(' <')[0]) from error


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
      raise Unreadable(f'unreadable image: wrong checksum of {name} in PNG')
    start = end + 4


def to_grey(image: PIL.Image.Image) -> np.ndarray:
  """A loaded Pillow image of any mode to HW uint8, as `read` says."""
  if image.mode in ('L', 'LA', 'RGBA'):
    return np.asarray(image.getchannel(0))
  if image.mode.startswith('I') or image.mode == 'F':
    return scale(np.asarray(image))
  return np.asarray((image if image.mode == 'RGB' else image.convert('RGB')).convert('L'))


def scale(image: np.ndarray, sample: np.ndarray | None = None) -> np.ndarray:
  """Rescales any numbers to HW uint8 between the PERCENTILES of the image or of a sample; a flat image becomes 0.

  Raises:
    Unreadable: the percentiles are NaN or infinite.
  """
  low, high = map(float, np.percentile(image if sample is None else sample, PERCENTILES))
  if not np.isfinite(high - low):
    raise Unreadable('unreadable image: pixels are NaN or infinite')
  grey = np.empty(image.shape, np.uint8)
  for start in range(0, len(image), ROWS):
    fraction = (image[start:start + ROWS].astype(np.float64) - low) / max(high - low, 1e-9)
    grey[start:start + ROWS] = np.rint(np.clip(fraction, 0, 1) * 255)
  return grey


def downscale(image: np.ndarray, longest: int | None) -> np.ndarray:
  """Reduces HW uint8 until its longer side is at most `longest`, aspect kept; never enlarges."""
  if longest is None or max(image.shape) <= longest:
    return image
  height, width = (max(1, round(side * longest / max(image.shape))) for side in image.shape)
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def fit_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Resizes an HW uint8 mask to (height, width) by nearest neighbour, which invents no new class."""
  if mask.shape == shape:
    return mask
  # INTER_NEAREST_EXACT samples at pixel centres; plain INTER_NEAREST shifts the mask by up to half a pixel.
  return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def encode(image: np.ndarray, plain: bool = False) -> bytes:
  """HW uint8 to the bytes of a one-channel PNG; `plain` leaves it uncompressed and unfiltered."""
  options = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if plain else ()
  return cv2.imencode('.png', np.ascontiguousarray(image), options)[1].tobytes()
