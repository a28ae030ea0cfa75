"""Picture files in, one grey channel of 8 bits out. Every way a file can be broken becomes `Unreadable` here."""
import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import PIL.Image

from tfds_builders.common import archives

LONGEST = 300  # characters of a reason
MAX_PIXELS = 100_000_000  # the largest film scans have about 30 million; in colour this takes 0.9 GB while it is read
FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'JPEG2000')  # Pillow has more; one of them runs Ghostscript
PLAIN_UP_TO = 256  # pixels a side; smaller ones are stored uncompressed: twice the bytes, hardly any decoding
PERCENTILES = (0.5, 99.5)  # what becomes 0 and 255 of an image of more than 8 bits
ROWS = 256  # scaled at once: it takes eight bytes a pixel

# Pillow's own guard would refuse at a smaller size than ours; it still refuses at twice this before it decodes.
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)


class Unreadable(ValueError):
  """The file is not an image that can be had whole. The reason may hold whatever the file does: it is made one line."""

  def __init__(self, reason):
    super().__init__(archives.escape(reason)[:LONGEST])


def read(path):
  """The grey image in a file.

  Pillow and not OpenCV decodes, since OpenCV returns what there is of a truncated file without an error.

  Returns:
    HW uint8. RGBA and LA give their first channel; RGB, palette and CMYK their luma; more than 8 bits are
    scaled so that the 0.5th and 99.5th percentile of this image become 0 and 255. DICOM: see `dicom.decode`.

  Raises:
    Unreadable: not an image, truncated, damaged, or more than MAX_PIXELS pixels (seen in the header).
  """
  return reduce(decode(read_bytes(path)))


def read_stored(path, longest=None, keep_jpeg=False):
  """What a record keeps of an image file.

  Args:
    longest: pixels the longer side may have, None for any; larger images are reduced, smaller left alone.
    keep_jpeg: whether a grey JPEG that is not reduced may stay the bytes it is.

  Returns:
    bytes, (height, width): a one-channel 8-bit PNG, uncompressed up to PLAIN_UP_TO. A larger file that is one
    already and is not reduced is taken over byte by byte, as is a grey JPEG with keep_jpeg.
  """
  raw = read_bytes(path)
  image = decode(raw)
  grey = shrink(reduce(image), longest)
  untouched = grey.shape == (image.height, image.width) and image.mode == 'L'
  plain = not {'transparency', 'exif'} & set(image.info)  # either would make some readers return something else
  small = max(grey.shape) <= PLAIN_UP_TO
  png = image.format == 'PNG' and not small and np.array_equal(cv2.imdecode(
    np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED), grey)  # what breaks the standard, others may read otherwise
  if untouched and plain and (png or image.format == 'JPEG' and keep_jpeg):
    return raw, grey.shape
  return encode(grey, plain=small), grey.shape


def read_bytes(path):
  try:
    return path.read_bytes()
  except OSError as error:
    raise Unreadable(f'unreadable file: {error.strerror}') from error


def decode(raw):
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


def check_png(raw):
  """Raises Unreadable where a chunk of a PNG is cut or not what its checksum says, which Pillow does not look at."""
  place, name = 8, b''
  while name != b'IEND':
    if place + 12 > len(raw):
      raise Unreadable('unreadable image: PNG without its end')
    length, name = struct.unpack_from('>I4s', raw, place)
    end = place + 8 + length
    # Chunks with a small first letter are notes, which some programs change without care.
    if name[0] < 97 and raw[end:end + 4] != struct.pack('>I', zlib.crc32(memoryview(raw)[place + 4:end])):
      raise Unreadable(f'unreadable image: checksum of {name} in PNG')
    place = end + 4


def reduce(image):
  """A loaded Pillow image of any mode to HW uint8, by the rules of `read`."""
  if image.mode in ('L', 'LA', 'RGBA'):
    return np.asarray(image.getchannel(0))
  if image.mode.startswith('I') or image.mode == 'F':
    return scale(np.asarray(image))
  return np.asarray((image if image.mode == 'RGB' else image.convert('RGB')).convert('L'))


def scale(image, sample=None):
  """Any numbers to uint8 between their percentiles, or those of a sample; a flat image becomes 0.

  Raises:
    Unreadable: pixels that are no numbers, or so many infinite ones that there is no scale.
  """
  low, high = map(float, np.percentile(image if sample is None else sample, PERCENTILES))
  if not np.isfinite(high - low):
    raise Unreadable('unreadable image: pixels that are no numbers')
  grey = np.empty(image.shape, np.uint8)
  for start in range(0, len(image), ROWS):
    share = (image[start:start + ROWS].astype(np.float64) - low) / max(high - low, 1e-9)
    grey[start:start + ROWS] = np.rint(np.clip(share, 0, 1) * 255)
  return grey


def shrink(image, longest):
  """Reduces HW uint8 so that its longer side is at most `longest`, aspect kept; never enlarges."""
  if longest is None or max(image.shape) <= longest:
    return image
  height, width = (max(1, round(side * longest / max(image.shape))) for side in image.shape)
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def fit_mask(mask, shape):
  """Brings an HW uint8 mask to (height, width) by nearest neighbour: no class that was not there appears."""
  if mask.shape == shape:
    return mask
  # INTER_NEAREST_EXACT takes pixel centres; plain INTER_NEAREST shifts the mask by up to half a pixel.
  return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def encode(image, plain=False):
  """HW uint8 to the bytes of a one-channel PNG; `plain` leaves it uncompressed and unfiltered."""
  how = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if plain else ()
  return cv2.imencode('.png', np.ascontiguousarray(image), how)[1].tobytes()
