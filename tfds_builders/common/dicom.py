"""Reads DICOM files as one grey channel of 8 bits, bone bright. Errors are `decoded.Unreadable`, as for other files.

Imported only when a DICOM file is met: importing pydicom takes 0.2 s, and most archives have none.
"""
import contextlib
import copy
import io
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydicom
from pydicom import encaps, pixels, uid

from tfds_builders.common import decoded

RAW = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless)
JPEG2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
PILLOW = (uid.JPEGBaseline8Bit, *JPEG2000)  # GDCM reads them too, but aborts the process on some damaged ones
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG markers with a frame's size; 0xF7 is JPEG-LS
HEADER_BYTES = 65_536  # the file meta information ends within these
COLOURS = ('RGB', 'YBR_FULL', 'YBR_FULL_422', 'YBR_ICT', 'YBR_RCT')  # pydicom gives RGB of all of them
MIN_IN_WINDOW = 0.1  # fraction of pixels that a window must leave between black and white; else it is ignored

warnings.filterwarnings('ignore', module='pydicom')  # it warns of values that break the standard and reads on


def decode(raw: bytes) -> np.ndarray:
  """Reads the bytes of a DICOM file as grey.

  Stored values go through the modality rescale or lookup table, then through the first VOI table or window (DICOM
  PS3.3 C.11). If there is none, or if it saturates more than nine tenths of the pixels, values of up to 8 bits are used
  as they are, spread to 0 to 255, and deeper ones are rescaled as in `images.read`. MONOCHROME1 is inverted. Padding
  becomes black and does not influence the scale. Colours, also of a palette, give their luma. There is no
  orientation to apply, and PhotometricInterpretation alone gives the polarity: PresentationLUTShape repeats it.

  Returns:
    HW uint8.

  Raises:
    decoded.Unreadable: not DICOM, no pixels, several frames, an unsupported transfer syntax, damaged, a compressed
      stream whose size differs from the header's, or more than decoded.MAX_PIXELS pixels. The last two are checked
      before anything is decoded.
  """
  with explain_errors():
    return to_grey(*decode_stored(raw))


def decode_mask(raw: bytes) -> decoded.Picture:
  """The stored values of a DICOM file as a mask: no rescale, window or palette is applied. Raises Unreadable."""
  with explain_errors():
    header, stored = decode_stored(raw)
    if stored.ndim == 2 and header.PhotometricInterpretation not in ('MONOCHROME2', 'PALETTE COLOR'):
      raise decoded.Unreadable(f'DICOM mask not supported: {header.PhotometricInterpretation}')
    return decoded.Picture(stored, 'DICOM')


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
  """Turns the errors of pydicom and its decoders into decoded.Unreadable."""
  try:
    yield
  except (decoded.Unreadable, MemoryError):
    raise
  except Exception as error:  # AttributeError, ValueError, struct.error, ...
    reason = ' '.join(f'unreadable DICOM: {type(error).__name__} {error}'.split())
    raise decoded.Unreadable(reason) from error


def decode_dataset(header: pydicom.Dataset) -> np.ndarray:
  """Like `decode`, of a data set that pydicom has read or that a program has made. It is not changed."""
  with explain_errors():
    syntax = getattr(getattr(header, 'file_meta', None), 'TransferSyntaxUID', None)
    if syntax is None:
      raise decoded.Unreadable('DICOM data set without file_meta.TransferSyntaxUID: how its pixels are stored is not '
                              'known')
    check_syntax(syntax)
    return to_grey(*decode_pixels(copy.copy(header), syntax))


def decode_stored(raw: bytes) -> tuple[pydicom.Dataset, np.ndarray]:
  """Header and stored values of a file: HW, or HW3 in RGB."""
  syntax = read_syntax(raw)
  check_syntax(syntax)
  return decode_pixels(pydicom.dcmread(io.BytesIO(raw)), syntax)


def decode_pixels(header: pydicom.Dataset, syntax: uid.UID) -> tuple[pydicom.Dataset, np.ndarray]:
  """`header` itself, whose options of decoding are set, and its stored values."""
  check_size(header, syntax)
  header.pixel_array_options(decoding_plugin='pillow' if syntax in PILLOW else '', correct_unused_bits=False)
  words = header.pixel_array
  if words.shape[:2] != header_size(header):  # several frames although the header says one
    raise decoded.Unreadable(f'DICOM holds more than its header says: {words.shape}')
  photometric = header.PhotometricInterpretation
  if words.ndim == 3 and (photometric not in COLOURS or words.shape[2] != 3):
    raise decoded.Unreadable(f'DICOM of {words.shape[2]} samples not supported: {photometric}')
  return header, extract_bits(header, words) if words.dtype.kind in 'iu' else words


def extract_bits(header: pydicom.Dataset, words: np.ndarray) -> np.ndarray:
  """The BitsStored bits whose highest is HighBit, moved to the bottom of each word, with their sign.

  Other bits may hold an overlay. A HighBit that leaves no room for BitsStored is ignored. So is one above them, if the
  values lie at the bottom all the same: then none is too large for BitsStored, and the bits below it are in use.
  """
  room, bits = 8 * words.itemsize, int(header.BitsStored)
  high = header.get('HighBit')
  shift = int(bits - 1 if high is None else high) + 1 - bits
  if not 0 < shift <= room - bits:
    shift = 0
  top = 2 ** (bits - (words.dtype.kind == 'i'))
  if shift and words.max() < top and words.min() >= (-top if words.dtype.kind == 'i' else 0) and (
      words & (2**shift - 1)).any():
    shift = 0
  unused = max(room - bits, 0)
  return (words << max(unused - shift, 0)) >> unused


def read_size(path: pathlib.Path) -> tuple[int, int]:
  """(height, width) from the header of a DICOM file, without reading its pixels. Raises decoded.Unreadable."""
  try:
    with open(path, 'rb') as file:
      check_syntax(read_syntax(file.read(HEADER_BYTES)))
      file.seek(0)
      header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=['Rows', 'Columns'])
    return header_size(header)
  except decoded.Unreadable:
    raise
  except Exception as error:
    raise decoded.Unreadable(f'unreadable DICOM: {type(error).__name__}') from error


def check_syntax(syntax: uid.UID) -> None:
  """Raises Unreadable for an unsupported transfer syntax, such as the deflated one, which can inflate without limit."""
  if syntax not in (*RAW, *JPEG, *JPEG2000):
    raise decoded.Unreadable(f'DICOM transfer syntax not supported: {syntax.name}')


def read_syntax(raw: bytes) -> uid.UID:
  """Transfer syntax from the file meta information: group 2, after 128 bytes and 'DICM'. Nothing else is read."""
  meta = pydicom.filereader.read_dataset(
    io.BytesIO(raw[132:]), is_implicit_VR=False, is_little_endian=True,
    stop_when=lambda tag, vr, length: tag.group != 2)
  return meta.TransferSyntaxUID


def header_size(header: pydicom.Dataset) -> tuple[int, int]:
  """(height, width) of a header, at least one pixel each; raises ValueError, TypeError, AttributeError."""
  height, width = int(header.Rows), int(header.Columns)
  if height < 1 or width < 1:
    raise ValueError(f'{width} x {height} pixels')
  return height, width


def check_size(header: pydicom.Dataset, syntax: uid.UID) -> None:
  """Raises Unreadable for too many pixels, several frames, or a stream whose size differs from the header's."""
  (height, width), frames = header_size(header), int(header.get('NumberOfFrames') or 1)
  if height * width > decoded.MAX_PIXELS:
    raise decoded.Unreadable(f'image too large: {width} x {height} pixels, at most {decoded.MAX_PIXELS}')
  if frames != 1:
    raise decoded.Unreadable(f'DICOM with several frames: {frames}')
  if syntax in RAW:
    return
  check_depth(header)
  stream = encaps.get_frame(header.PixelData, 0, number_of_frames=1)
  size = (find_jpeg2000_size if syntax in JPEG2000 else find_jpeg_size)(stream)
  if size != (height, width):
    raise decoded.Unreadable(
      f'DICOM sizes differ: {width} x {height} in the header, {size[1]} x {size[0]} in its JPEG')


def check_depth(header: pydicom.Dataset) -> None:
  """Raises Unreadable for bit depths on which GDCM aborts the process instead of raising an error."""
  allocated, stored, samples = (int(header[name].value) for name in ('BitsAllocated', 'BitsStored', 'SamplesPerPixel'))
  if allocated not in (8, 16) or not 1 <= stored <= allocated or samples not in (1, 3):
    raise decoded.Unreadable(f'compressed DICOM of {samples} samples of {stored} bits in {allocated}')


def find_jpeg_size(stream: bytes) -> tuple[int, int]:
  """(height, width) from the frame header of a JPEG or JPEG-LS stream."""
  start = 2
  while stream[start] == 0xFF:
    marker = stream[start + 1]
    if marker in FRAME_MARKERS:
      return int.from_bytes(stream[start + 5:start + 7]), int.from_bytes(stream[start + 7:start + 9])
    # 0xFF may be repeated before a marker
    start += 1 if marker == 0xFF else 2 + int.from_bytes(stream[start + 2:start + 4])
  raise ValueError('JPEG stream without frame header')


def find_jpeg2000_size(stream: bytes) -> tuple[int, int]:
  """(height, width) from the SIZ segment, which comes first; the stream may lie in a JP2 file."""
  start = stream.index(b'\xff\x4f\xff\x51') + 8
  right, bottom, left, top = (int.from_bytes(stream[at:at + 4]) for at in range(start, start + 16, 4))
  return bottom - top, right - left


def to_grey(header: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
  """Stored values of a DICOM image to HW uint8, bone bright."""
  photometric = header.PhotometricInterpretation
  if photometric == 'PALETTE COLOR' and 'RedPaletteColorLookupTableData' in header:
    stored = apply_palette(header, stored)
  if stored.ndim == 3:
    return decoded.to_grey(decoded.Picture(stored, 'DICOM'))
  if photometric not in ('MONOCHROME1', 'MONOCHROME2'):
    raise decoded.Unreadable(f'DICOM photometric interpretation not supported: {photometric}')
  inside = find_unpadded(header, stored)
  values = apply_modality(header, stored)
  fraction = apply_window(header, values, inside)
  if fraction is not None:
    grey = np.rint(fraction * 255).astype(np.uint8)
  elif stored.dtype == np.uint8 and not header.get('ModalityLUTSequence'):
    grey = np.rint(stored * (255 / (2**header.BitsStored - 1))).astype(np.uint8)
    grey = 255 - grey if read_slope(header) < 0 else grey
  else:
    grey = decoded.scale(values, None if inside is None else values[inside])
  grey = 255 - grey if photometric == 'MONOCHROME1' else grey
  return grey if inside is None else np.where(inside, grey, 0).astype(np.uint8)


def find_unpadded(header: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
  """HW bool, false on pixels that only pad the image to a rectangle; None without padding."""
  if header.get('PixelPaddingValue') is None:
    return None
  ends = [header.PixelPaddingValue, header.get('PixelPaddingRangeLimit', header.PixelPaddingValue)]
  inside = (stored < min(ends)) | (stored > max(ends))
  return inside if inside.any() else None


def apply_modality(header: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
  """Stored values through the modality lookup table, or slope and intercept, to float32."""
  if header.get('ModalityLUTSequence'):
    return pixels.apply_modality_lut(stored, header).astype(np.float32)
  return stored.astype(np.float32) * np.float32(read_slope(header)) + np.float32(header.get('RescaleIntercept') or 0)


def read_slope(header: pydicom.Dataset) -> float:
  """RescaleSlope; 1 if it is absent, or 0, which would leave no picture."""
  return float(header.get('RescaleSlope') or 1)


def apply_palette(header: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
  """Indices through the palette to HW3 uint8. Some files state 16 bits for entries of 8."""
  colours = pixels.apply_color_lut(stored, header)
  return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def apply_window(header: pydicom.Dataset, values: np.ndarray, inside: np.ndarray | None) -> np.ndarray | None:
  """Values through the first VOI table or window to HW float32 from 0 to 1; None without a useful one."""
  if header.get('VOILUTSequence'):
    looked_up = pixels.apply_voi(np.rint(values).astype(np.int32), header).astype(np.float32)
    fraction = looked_up / max(float(np.max(header.VOILUTSequence[0].LUTData)), 1.0)
  elif header.get('WindowCenter') is not None and header.get('WindowWidth') is not None:
    centre, width = (np.float32(first_value(header[name].value)) for name in ('WindowCenter', 'WindowWidth'))
    function = header.get('VOILUTFunction', 'LINEAR')
    if function == 'SIGMOID':
      fraction = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / max(width, np.float32(1e-3)), -80, 80)))
    else:
      exact = function == 'LINEAR_EXACT'
      centre, width = (centre, width) if exact else (centre - np.float32(0.5), width - 1)
      fraction = np.clip((values - centre) / max(width, np.float32(1e-3)) + np.float32(0.5), 0, 1)
  else:
    return None
  unsaturated = (fraction > 1 / 255) & (fraction < 254 / 255)
  return fraction if (unsaturated if inside is None else unsaturated[inside]).mean() >= MIN_IN_WINDOW else None


def first_value(value: Any) -> Any:
  return value[0] if isinstance(value, pydicom.multival.MultiValue) else value
