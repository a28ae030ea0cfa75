"""A decoded image file, and its samples as one grey channel of 8 bits."""
import dataclasses

import numpy as np
import PIL.Image

from tfds_builders.common import plain_text

MAX_PIXELS = 100_000_000  # the largest film scans have about 30 million; decoding this many in colour takes 0.9 GB
PERCENTILES = (0.5, 99.5)  # mapped to 0 and 255 in images of more than 8 bits
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
ROWS = 256  # rows that are rescaled at a time, since float64 takes eight bytes per pixel


class Unreadable(ValueError):
  """The file is not a complete image. The reason may quote the file, so it is escaped to one line and shortened."""

  def __init__(self, reason: str) -> None:
    super().__init__(plain_text.as_reason(reason))


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


def check_size(width: int, height: int) -> None:
  if width * height > MAX_PIXELS:
    raise Unreadable(f'image too large: {width} x {height} pixels, at most {MAX_PIXELS}')


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
