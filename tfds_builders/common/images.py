"""Image files as one grey channel of 8 bits, and as the bytes that a record stores."""
import pathlib

import cv2
import numpy as np

from tfds_builders.common import decoded, image_files

PLAIN_UP_TO = 256  # pixels of the longer side; such images are stored uncompressed: twice the bytes, fast to decode


def read(path: pathlib.Path) -> np.ndarray:
  """Reads an image file as grey; docs/own-data.md has a table of what is read and what is rejected.

  Pillow decodes, since OpenCV returns the readable part of a truncated file without an error.

  Returns:
    HW uint8, upright. RGBA gives its first channel, other colours their luma; alpha is ignored. An image of more than 8
    bits is rescaled so that its 0.5th and 99.5th percentiles become 0 and 255. For DICOM see `dicom.decode`.

  Raises:
    decoded.Unreadable: not an image, truncated, damaged, or more than decoded.MAX_PIXELS pixels according to the
      header; several pages or frames; a picture that has only alpha; an unsupported kind of samples.
  """
  return decoded.to_grey(image_files.decode(image_files.read_bytes(path)))


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
    decoded.Unreadable: as `read`.
  """
  raw = image_files.read_bytes(path)
  picture = image_files.decode(raw)
  grey = downscale(decoded.to_grey(picture), longest)
  small = max(grey.shape) <= PLAIN_UP_TO
  png = is_untouched(picture, grey) and picture.file_format == 'PNG' and not small and opencv_agrees(raw, grey)
  if png or keep_jpeg and is_stored_jpeg(picture, grey):
    return raw, grey.shape
  return encode(grey, plain=small), grey.shape


def is_untouched(picture: decoded.Picture, grey: np.ndarray) -> bool:
  """Whether a record could store the bytes of the file. `grey` is what is to be stored."""
  return picture.reusable and grey.shape == picture.values.shape


def is_stored_jpeg(picture: decoded.Picture, grey: np.ndarray) -> bool:
  """Whether `read_stored` with keep_jpeg keeps the bytes of the file, whose pixels are then those of OpenCV's decoder.
  In all other cases the pixels of a record are `grey`."""
  return picture.file_format == 'JPEG' and is_untouched(picture, grey)


def opencv_agrees(raw: bytes, grey: np.ndarray) -> bool:
  """Whether OpenCV decodes a PNG to the same pixels as Pillow; one that breaks the standard may differ."""
  pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  return pixels is not None and np.array_equal(pixels, grey)


def decode_stored(encoded: bytes) -> np.ndarray:
  """HW uint8 of the PNG or JPEG bytes in a record.

  Raises:
    decoded.Unreadable: damaged bytes.
  """
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
  if image is None:
    raise decoded.Unreadable('unreadable image in a record')
  return image


def downscale(image: np.ndarray, longest: int | None) -> np.ndarray:
  """Reduces HW uint8 until its longer side is at most `longest`, aspect kept; never enlarges."""
  if longest is None or max(image.shape) <= longest:
    return image
  height, width = (max(1, round(side * longest / max(image.shape))) for side in image.shape)
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def fit_mask(mask: np.ndarray, shape: tuple[int, int], stretch: float = 0.0) -> np.ndarray:
  """Resizes an HW uint8 mask to (height, width) by nearest neighbour, which invents no new class.

  Raises:
    decoded.Unreadable: the aspect differs by more than the fraction `stretch` and rounding to whole pixels.
  """
  if mask.shape == shape:
    return mask
  wide, high = mask.shape[1] * shape[0], mask.shape[0] * shape[1]
  if abs(wide - high) > stretch * max(wide, high) + (sum(shape) + sum(mask.shape)) / 2:
    raise decoded.Unreadable(f'mask of another shape than its image: {mask.shape[1]} x {mask.shape[0]} pixels, the '
                             f'image has {shape[1]} x {shape[0]} as prepared (width x height)')
  # INTER_NEAREST_EXACT samples at pixel centres; plain INTER_NEAREST shifts the mask by up to half a pixel.
  return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def encode(image: np.ndarray, plain: bool = False) -> bytes:
  """HW uint8 to the bytes of a one-channel PNG; `plain` leaves it uncompressed and unfiltered."""
  options = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if plain else ()
  return cv2.imencode('.png', np.ascontiguousarray(image), options)[1].tobytes()
