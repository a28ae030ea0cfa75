"""Reads image files as one grey channel of 8 bits. Anything wrong with a file raises `Unreadable`."""
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

from tfds_builders.common import plain_text

MAX_REASON = 300  # characters
MAX_PIXELS = 100_000_000  # the largest film scans have about 30 million; decoding this many in colour takes 0.9 GB
FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'JPEG2000')  # Pillow has more; one of them runs Ghostscript
ANIMATED = ('GIF', 'WEBP', 'PNG')  # formats whose frames are moments. A JPEG has smaller copies and the like beside it
COLOURS = ('RGB', 'RGBA', 'LA')  # Pillow's modes that halve the depth of 16-bit samples
BMP_BITS, BMP_COLOURS = 28, 46  # places in the header: bits of a pixel, number of colours (0 is all)
PLAIN_UP_TO = 256  # pixels of the longer side; such images are stored uncompressed: twice the bytes, fast to decode
PERCENTILES = (0.5, 99.5)  # mapped to 0 and 255 in images of more than 8 bits
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
ROWS = 256  # rows that are rescaled at a time, since float64 takes eight bytes per pixel

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
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
# OpenCV writes to stderr what it cannot read. Such a file is rejected with a reason.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Unreadable(ValueError):
  """The file is not a complete image. The reason may quote the file, so it is escaped to one line and cut."""

  def __init__(self, reason: str) -> None:
    super().__init__(plain_text.escape(reason)[:MAX_REASON])


@dataclasses.dataclass(frozen=True)
class Picture:
  """A decoded file, upright.

  Attributes:
    values: HW or HWC of any numbers, larger is brighter. C is 2 (grey, alpha), 3 (red, green, blue) or 4 (with alpha).
      With a palette, HW uint8 indices.
    file_format: as Pillow names it, or 'DICOM'.
    bits: of a sample in the file. Grey of less than 8 bits is spread to 0 to 255.
    palette: (N, 3) uint8 colours of the indices.
    white_is_zero: whether 0 is white in the file; `values` are inverted already.
    reusable: whether a record can store the file's own bytes: one channel of 8 bits, and nothing that other readers
      may apply, such as an orientation or transparency.
  """
  values: np.ndarray
  file_format: str
  bits: int = 8
  palette: np.ndarray | None = None
  white_is_zero: bool = False
  reusable: bool = False


def read(path: pathlib.Path) -> np.ndarray:
  """Reads an image file as grey; docs/own-data.md has a table of what is read and what is rejected.

  Pillow decodes, since OpenCV returns the readable part of a truncated file without an error.

  Returns:
    HW uint8, upright. RGBA gives its first channel, other colours their luma; alpha is ignored. An image of more than 8
    bits is rescaled so that its 0.5th and 99.5th percentiles become 0 and 255. For DICOM see `dicom.decode`.

  Raises:
    Unreadable: not an image, truncated, damaged, or more than MAX_PIXELS pixels according to the header; several
      pages or frames; a picture that has only alpha; an unsupported kind of samples.
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
  picture = decode(raw)
  grey = downscale(to_grey(picture), longest)
  small = max(grey.shape) <= PLAIN_UP_TO
  png = is_untouched(picture, grey) and picture.file_format == 'PNG' and not small and opencv_agrees(raw, grey)
  if png or keep_jpeg and is_stored_jpeg(picture, grey):
    return raw, grey.shape
  return encode(grey, plain=small), grey.shape


def is_untouched(picture: Picture, grey: np.ndarray) -> bool:
  """Whether a record could store the bytes of the file. `grey` is what is to be stored."""
  return picture.reusable and grey.shape == picture.values.shape


def is_stored_jpeg(picture: Picture, grey: np.ndarray) -> bool:
  """Whether `read_stored` with keep_jpeg keeps the bytes of the file, whose pixels are then those of OpenCV's decoder.
  In all other cases the pixels of a record are `grey`."""
  return picture.file_format == 'JPEG' and is_untouched(picture, grey)


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


def decode(raw: bytes) -> Picture:
  """Bytes of a file to its samples; raises Unreadable."""
  from tfds_builders.common import tiff
  if raw[128:132] == b'DICM':
    from tfds_builders.common import dicom
    return Picture(dicom.decode(raw), 'DICOM')
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
    raise Unreadable(f'unreadable image: {type(error).__name__} {error}'[:200].split(' <')[0]) from error


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


def check_size(width: int, height: int) -> None:
  if width * height > MAX_PIXELS:
    raise Unreadable(f'image too large: {width} x {height} pixels, at most {MAX_PIXELS}')


def read_orientation(image: PIL.Image.Image) -> int:
  """Orientation from EXIF, or else from XMP, of a Pillow image; 1 if it has none, or none that can be read."""
  try:
    return image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow raises many types; other readers ignore damaged EXIF, too
    return 1


def read_size(path: pathlib.Path) -> tuple[int, int]:
  """(height, width) of the upright image, without decoding its pixels where that is possible. Raises Unreadable."""
  from tfds_builders.common import tiff
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
    raise Unreadable(f'unreadable image: {type(error).__name__} {error}'[:200].split(' <')[0]) from error
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


def to_grey(picture: Picture) -> np.ndarray:
  """A decoded file to HW uint8, as `read` says."""
  values = picture.values
  if picture.palette is not None:
    return compute_luma(picture.palette[None])[0][values]
  if values.ndim == 3 and values.shape[2] == 3:
    values = compute_luma(values)
  elif values.ndim == 3:  # with alpha: a radiograph saved so has its grey in every channel
    opaque, _ = split_alpha(values)
    values = opaque if opaque.ndim == 2 else opaque[..., 0]
  return values if values.dtype == np.uint8 else scale(values)


def split_alpha(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """HW2 or HW4 to (grey HW or colour HW3, alpha HW). Raises Unreadable if only alpha differs from pixel to pixel."""
  colour, alpha = values[..., :-1], values[..., -1]
  if np.ptp(alpha) and not np.ptp(colour, axis=(0, 1)).any():
    raise Unreadable('picture only in the alpha channel')
  return colour[..., 0] if colour.shape[2] == 1 else colour, alpha


def compute_luma(colour: np.ndarray) -> np.ndarray:
  """HW3 to HW: uint8 stays uint8, and equal channels keep their value; other types give float32."""
  if colour.dtype == np.uint8:
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(colour)).convert('L'))
  return colour.astype(np.float32) @ np.array(LUMA, np.float32)


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


def fit_mask(mask: np.ndarray, shape: tuple[int, int], stretch: float = 0.0) -> np.ndarray:
  """Resizes an HW uint8 mask to (height, width) by nearest neighbour, which invents no new class.

  Raises:
    Unreadable: the aspect differs by more than the fraction `stretch` and rounding to whole pixels.
  """
  if mask.shape == shape:
    return mask
  wide, high = mask.shape[1] * shape[0], mask.shape[0] * shape[1]
  if abs(wide - high) > stretch * max(wide, high) + (sum(shape) + sum(mask.shape)) / 2:
    raise Unreadable(f'mask of another shape than its image: {mask.shape[1]} x {mask.shape[0]} pixels, the image has '
                     f'{shape[1]} x {shape[0]} (width x height)')
  # INTER_NEAREST_EXACT samples at pixel centres; plain INTER_NEAREST shifts the mask by up to half a pixel.
  return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def encode(image: np.ndarray, plain: bool = False) -> bytes:
  """HW uint8 to the bytes of a one-channel PNG; `plain` leaves it uncompressed and unfiltered."""
  options = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if plain else ()
  return cv2.imencode('.png', np.ascontiguousarray(image), options)[1].tobytes()
