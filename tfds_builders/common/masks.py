"""Reads segmentation masks, whose pixels are class numbers or black and white; docs/own-data.md has a table."""
import pathlib

import numpy as np

from tfds_builders.common import decoded, image_files
from tfds_builders.common.label_columns import UNANNOTATED

WHITE = 128  # the least value of a black-and-white mask's foreground: smaller ones are class numbers
LOSSY = ('JPEG', 'MPO', 'WEBP', 'JPEG2000')  # the first two always blur the values around edges, the others may
WRITE = 'write 0 and 1, or 0 and 255'  # the remedy for a mask of two classes


def read(path: pathlib.Path, classes: int) -> np.ndarray:
  """Reads a mask.

  A mask of two classes may hold 0 and 1, or be black and white, or mark the foreground with a colour or by opacity.
  Of more than two classes, each pixel is the number of its class. UNANNOTATED is not annotated, except in a
  black-and-white mask.

  Args:
    path: of the file.
    classes: how many there are, background included.

  Returns:
    HW uint8 of class numbers, upright.

  Raises:
    decoded.Unreadable: not an image, or values that are no class numbers.
  """
  picture = decode(path)
  if classes == 2:
    return separate(picture)
  if picture.file_format in LOSSY[:2]:
    raise decoded.Unreadable(f'mask of {classes} classes in lossy {picture.file_format}: write PNG')
  if picture.white_is_zero:
    raise decoded.Unreadable(f'mask of {classes} classes in which 0 is white: write PNG')
  return check_classes(find_numbers(picture, classes), classes)


def read_foreground(path: pathlib.Path) -> np.ndarray:
  """HW uint8 of a mask in which everything that is not black is foreground: 1 there, 0 elsewhere. Raises Unreadable."""
  picture = decode(path)
  values = picture.values if picture.palette is None else picture.palette[picture.values]
  return (flatten(values) > 0).astype(np.uint8)


def decode(path: pathlib.Path) -> decoded.Picture:
  """A decoded mask, with stored values also of a DICOM file."""
  raw = image_files.read_bytes(path)
  if raw[128:132] == b'DICM':
    from tfds_builders.common import dicom
    return dicom.decode_mask(raw)
  return image_files.decode(raw)


def separate(picture: decoded.Picture) -> np.ndarray:
  """A mask of two classes to HW uint8: 0, 1, and UNANNOTATED."""
  if picture.palette is not None:
    return separate_palette(picture.values, picture.palette)
  values = require_whole(picture.values)
  if picture.file_format in LOSSY and not set(np.unique(values).tolist()) <= {0, 1, 255}:
    brightest = values.max(2) if values.ndim == 3 else values
    if 0 < brightest.max() < WHITE:
      raise decoded.Unreadable(f'mask in lossy {picture.file_format} without white; {WRITE}')
    return mark(brightest >= WHITE, bool(np.ptp(brightest)))
  values = flatten(values)
  found = np.unique(values)
  if picture.white_is_zero and not set(found.tolist()) <= {0, 2 ** max(picture.bits, 8) - 1}:
    raise decoded.Unreadable(f'mask in which 0 is white, with other values than black and white; {WRITE}')
  if 0 < picture.bits < 8 and found[-1] == 255 // (2**picture.bits - 1):
    return (values > 0).astype(np.uint8)  # 0 and 1, spread to 8 bits
  return separate_greys(values)


def separate_greys(values: np.ndarray) -> np.ndarray:
  """HW numbers of a mask of two classes: 0 and 1, or black and white."""
  found = np.unique(values)
  if 1 in found:
    return check_classes(values, 2)
  if found[0] < 0 or 0 < found[-1] < WHITE:
    raise decoded.Unreadable(f'mask with unknown class: {found[found != 0][:5].tolist()}, classes are 0 to 1; {WRITE}, '
                            'or name the classes in classes.txt')
  return mark(values > 0, len(found) > 1)


def separate_palette(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """A mask of two classes with a palette: the index is the class, unless the palette only serves to store greys."""
  used = np.unique(indices)
  colours = palette[used]
  if used[-1] <= 1:
    if palette[0].min() == 255 and not palette[1].any():
      raise decoded.Unreadable('mask with a palette in which 0 is white and 1 is black, so what is foreground is not '
                              f'known; {WRITE}, without a palette')
    return indices
  if (colours == colours[:, :1]).all() and colours.any():  # greys in any order, as programs store them to save bytes
    return separate_greys(palette[indices][..., 0])
  if 1 not in used and len(set(used.tolist()) - {0}) > 1:
    raise decoded.Unreadable(f'mask with unknown class: {used[used > 0][:5].tolist()} in its palette; {WRITE}')
  return check_classes(indices, 2) if 1 in used else (indices > 0).astype(np.uint8)


def mark(foreground: np.ndarray, varies: bool) -> np.ndarray:
  """HW uint8, 1 in the foreground. Raises Unreadable if all is foreground although the values vary."""
  if varies and foreground.all():
    raise decoded.Unreadable(f'mask without a black background; {WRITE}')
  return foreground.astype(np.uint8)


def flatten(values: np.ndarray) -> np.ndarray:
  """HW or HWC to HW, 0 where black or transparent. Equal channels give their value; in a colour mask, 255 is colour."""
  if values.ndim == 2:
    return values
  colour = values if values.shape[2] == 3 else apply_alpha(values)
  if (colour == colour[..., :1]).all():
    return colour[..., 0]
  return mark(np.asarray(colour.any(2)), bool(np.ptp(colour, axis=(0, 1)).any())) * np.uint8(255)


def apply_alpha(values: np.ndarray) -> np.ndarray:
  """HW2 or HW4 to HW1 or HW3, 0 where transparent. If only alpha varies, it is the mask: 255 where not transparent."""
  colour, alpha = values[..., :-1], values[..., -1:]
  if not np.ptp(alpha):
    return colour
  return np.where(alpha > 0, colour if np.ptp(colour, axis=(0, 1)).any() else 255, 0)


def find_numbers(picture: decoded.Picture, classes: int) -> np.ndarray:
  """HW class numbers of a mask of more than two classes, not checked yet."""
  values = picture.values
  if picture.palette is not None:
    greys = picture.palette[values][..., 0]
    used = set(np.unique(greys).tolist())
    equal = (picture.palette == picture.palette[:, :1]).all()
    # A program that reduces the size of a grey file gives it a palette of its greys, which are the numbers then.
    renumbered = equal and used & {*range(1, classes)} and used <= {*range(classes), UNANNOTATED}
    return greys if renumbered else values
  if values.ndim == 2:
    return values // (255 // (2**picture.bits - 1)) if 0 < picture.bits < 8 else values
  grey = values[..., 0]
  if values.shape[2] > 2 and not (values[..., :3] == values[..., :1]).all():
    raise decoded.Unreadable(f'mask of {classes} classes in colour (mode {"RGBA"[:values.shape[2]]}): '
                            'write one channel of class numbers')
  alpha = values[..., -1]
  if values.shape[2] != 3 and np.ptp(alpha) and (grey[alpha == 0].any() or not np.ptp(grey)):
    mode = 'LA' if values.shape[2] == 2 else 'RGBA'
    raise decoded.Unreadable(f'mask of {classes} classes with transparency (mode {mode}): write one channel of class '
                            'numbers')
  return grey


def check_classes(values: np.ndarray, classes: int) -> np.ndarray:
  """HW uint8; raises Unreadable if a value is neither a class number nor UNANNOTATED."""
  values = require_whole(values)
  found = np.unique(values)
  unknown = found[(found < 0) | (found >= classes) & (found != UNANNOTATED)]
  if unknown.size:
    remedy = WRITE if classes == 2 else 'write the numbers of the classes'
    raise decoded.Unreadable(f'mask with unknown class: {unknown[:5].tolist()}, classes are 0 to {classes - 1}; '
                            f'{remedy}, or name the classes in classes.txt')
  return values.astype(np.uint8)


def require_whole(values: np.ndarray) -> np.ndarray:
  """Floating-point numbers as they are, if all are whole; raises Unreadable."""
  if values.dtype.kind == 'f' and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
    raise decoded.Unreadable('mask with fractions, which are no class numbers')
  return values
