"""Reads an image for a prediction exactly as the builders read it for a record, by the builders' own code.

    file, array or DICOM data set -> one grey channel of 8 bits, upright, bone bright -> longer side at most stored_size

The model then stretches the result to a square and standardises it, as in evaluation.
"""

import collections
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import numpy as np

from mtpret_jax.data.records import decode_grey
from tfds_builders.common import decoded, image_files, images
from tfds_builders.common.dataset import SIZES
from tfds_builders.common.decoded import Unreadable

THREADS = min(32, os.cpu_count() or 1)  # Pillow, OpenCV and zlib release the GIL
PREFETCH = 4 * THREADS  # images read before they are asked for; limits memory
ARRAYS = 'give uint8, uint16 or int16, or floats from 0 (black) to 1 (white)'
AXES = 'its axes must be (height, width), or (height, width, channels) with 1 channel (grey), 3 (RGB) or 4 (RGBA)'
CHANNELS = (1, 3, 4)


@dataclasses.dataclass(frozen=True)
class Reading:
  """Attributes:
    image: (h, w) uint8, the pixels that a record of this image would store: bone bright, its longer side at most
      `stored_size`.
    height: of the image itself, upright, px.
    width: likewise.
    name: the path of the file, or where it came from.
    warning: what makes a prediction doubtful; '' if nothing does.
  """

  image: np.ndarray
  height: int
  width: int
  name: str
  warning: str = ''


def read_image(source: Any, stored_size: str) -> Reading:
  """Reads one image.

  Args:
    source: a path (PNG, JPEG, TIFF, DICOM, BMP, GIF, WebP, JPEG 2000), a pydicom data set, or an array, see
      `read_array`.
    stored_size: 'original', '512' or '256', as `data.stored_size` of the run.

  Raises:
    Unreadable: it is no image, or a kind of image that the builders reject too. The reason fits in one line.
  """
  if isinstance(source, str | os.PathLike):
    raw = image_files.read_bytes(pathlib.Path(source))
    return store(image_files.decode(raw), stored_size, os.fspath(source), raw)
  if is_dataset(source):
    from tfds_builders.common import dicom  # slow to import
    picture = decoded.Picture(dicom.decode_dataset(source), 'DICOM')
    return store(picture, stored_size, str(source.get('SOPInstanceUID', '')))
  if hasattr(source, '__array__') and not hasattr(source, 'getexif'):
    array = np.asarray(source)
    return store(read_array(array), stored_size, f'an array of {" x ".join(map(str, array.shape))}', b'', array)
  raise Unreadable(f'an object of type {type(source).__name__} cannot be read: give a path, a NumPy array or a pydicom '
                   f'data set')


def is_dataset(source: Any) -> bool:
  """Whether this is a pydicom data set. If pydicom is not imported yet, which is slow, there can be none."""
  return 'pydicom' in sys.modules and isinstance(source, sys.modules['pydicom'].Dataset)


def store(picture: decoded.Picture, stored_size: str, name: str, raw: bytes = b'',
          array: np.ndarray | None = None) -> Reading:
  """What a builder would store of a decoded image. `raw` are the bytes of its file."""
  full = decoded.to_grey(picture)
  grey = images.downscale(full, SIZES[stored_size])
  keeps_jpeg = stored_size == 'original' and images.is_stored_jpeg(picture, grey)
  pixels = decode_grey(raw) if keeps_jpeg else grey  # a record of a JPEG file keeps its bytes
  height, width = full.shape
  return Reading(pixels, height, width, name, find_doubt(pixels, array))


def read_array(array: np.ndarray) -> decoded.Picture:
  """An array of pixels as the file with the same pixels: larger is brighter.

  uint8 is taken as it is, like a file of 8 bits; uint16 and int16 are rescaled between their 0.5th and 99.5th
  percentile, like a file of more bits; floats are rounded to 255 levels, so that `image / 255` gives what `image`
  gives. RGB becomes its luma. RGBA gives its first channel.

  Raises:
    Unreadable: other types, axes or ranges.
  """
  if array.dtype not in (np.uint8, np.uint16, np.int16) and array.dtype.kind != 'f':
    raise Unreadable(f'an array of {array.dtype} is no image: {ARRAYS}')
  if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] not in CHANNELS:
    raise Unreadable(f'an array of shape {array.shape} is no image: {AXES}')
  if not array.size:
    raise Unreadable(f'an array of shape {array.shape} has no pixels')
  decoded.check_size(array.shape[1], array.shape[0])
  if array.dtype.kind == 'f':
    array = round_unit(array)
  return decoded.Picture(array[..., 0] if array.shape[2:] == (1,) else array, 'array', 8 * array.itemsize)


def round_unit(array: np.ndarray) -> np.ndarray:
  """Floats from 0 to 1 -> uint8. Raises Unreadable for others, whose black and white nobody can know."""
  if not np.isfinite(array).all():
    raise Unreadable('an array with NaN or infinite values is no image')
  low, high = float(array.min()), float(array.max())
  if low < 0 or high > 1:
    raise Unreadable(f'floats must be from 0 (black) to 1 (white), and these are from {low:g} to {high:g}: divide by '
                     f'the value of white, such as 255, or convert to uint8 or uint16')
  return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def find_doubt(pixels: np.ndarray, array: np.ndarray | None) -> str:
  """Why a prediction for these pixels means little, or ''. `array` is what was given, if it was an array."""
  if not np.ptp(pixels):
    return 'every pixel has the same value'
  if array is not None and array.dtype == np.uint8 and array.max() <= 1:
    return 'all values are 0 and 1, of 255: floats from 0 to 1 need no conversion to uint8'
  if array is not None and array.dtype == np.uint16 and array.max() <= 255:
    return 'no value is above 255, and a uint16 image is rescaled by its percentiles: convert 8 bits to uint8'
  return ''


def read_images(sources: Iterable[Any], stored_size: str) -> Iterator[Reading | Unreadable]:
  """Yields what `read_image` returns or raises for each source, in order; threads read ahead."""
  def read(source: Any) -> Reading | Unreadable:
    try:
      return read_image(source, stored_size)
    except Unreadable as error:
      return error

  waiting: collections.deque[futures.Future[Reading | Unreadable]] = collections.deque()
  with futures.ThreadPoolExecutor(THREADS) as pool:
    try:
      for source in sources:
        waiting.append(pool.submit(read, source))
        if len(waiting) > PREFETCH:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:  # the caller may stop before the end
      for future in waiting:
        future.cancel()
