"""DICOM files in, one grey channel of 8 bits out, bone bright. Errors are `images.Unreadable`, as for other files.

Imported only where a DICOM file is met: pydicom takes 0.2 s, and most archives have none.
"""
import io
import warnings

import numpy as np
import PIL.Image
import pydicom
from pydicom import encaps, pixels, uid

from tfds_builders.common import images

RAW = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless)
JPEG2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
PILLOW = (uid.JPEGBaseline8Bit, *JPEG2000)  # GDCM reads them too, but ends the program on some that are damaged
SIZED = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG markers with a frame's size; 0xF7 is JPEG-LS
HEAD = 65_536  # bytes of a file in which the file meta information ends
SHOWN = 0.1  # share of the pixels that a window must leave between black and white, else it is passed by

warnings.filterwarnings('ignore', module='pydicom')  # it warns of values that break the standard and reads on


def decode(raw):
  """The grey image in the bytes of a DICOM file.

  Stored values go through the modality's rescale or table, then through the first VOI table or window (DICOM PS3.3
  C.11). Without one, or with one that shows less than a tenth of the pixels, 8 bits stay as they are and more are
  scaled as `images.read` says. MONOCHROME1 is inverted. Padding is black and has no say in the scale. Colour gives
  its luma.

  Returns:
    HW uint8.

  Raises:
    images.Unreadable: no DICOM, no pixels, several frames, a transfer syntax not in RAW, JPEG or JPEG2000, damaged,
      another size in the compressed stream than in the header, or more than images.MAX_PIXELS pixels (both are seen
      before anything is decoded).
  """
  try:
    syntax = read_syntax(raw)
    refuse_syntax(syntax)
    header = pydicom.dcmread(io.BytesIO(raw))
    refuse_size(header, syntax)
    if syntax in PILLOW:
      header.pixel_array_options(decoding_plugin='pillow')
    stored = header.pixel_array
    return develop(header, stored)
  except (images.Unreadable, MemoryError):
    raise
  except Exception as error:  # pydicom and its decoders raise AttributeError, ValueError, struct.error, ...
    words = ' '.join(f'unreadable DICOM: {type(error).__name__} {error}'.split())
    raise images.Unreadable(words[:200]) from error


def read_size(path):
  """(height, width) that the header of a DICOM file states; pixels are not read. Raises images.Unreadable."""
  try:
    with open(path, 'rb') as file:
      refuse_syntax(read_syntax(file.read(HEAD)))
      file.seek(0)
      header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=['Rows', 'Columns'])
    return as_size(header)
  except images.Unreadable:
    raise
  except Exception as error:
    raise images.Unreadable(f'unreadable DICOM: {type(error).__name__}') from error


def refuse_syntax(syntax):
  if syntax not in (*RAW, *JPEG, *JPEG2000):  # among them the deflated one, which would inflate without a limit
    raise images.Unreadable(f'DICOM transfer syntax not read: {syntax.name}')


def read_syntax(raw):
  """Transfer syntax from the file meta information: group 2, after 128 bytes and 'DICM'; nothing else is read."""
  meta = pydicom.filereader.read_dataset(
    io.BytesIO(raw[132:]), is_implicit_VR=False, is_little_endian=True,
    stop_when=lambda tag, vr, length: tag.group != 2)
  return meta.TransferSyntaxUID


def as_size(header):
  """(height, width) of a header, at least one pixel; raises ValueError, TypeError, AttributeError."""
  height, width = int(header.Rows), int(header.Columns)
  if height < 1 or width < 1:
    raise ValueError(f'{width} x {height} pixels')
  return height, width


def refuse_size(header, syntax):
  """Raises Unreadable where there would be too many pixels, or others than the header says."""
  (height, width), frames = as_size(header), int(header.get('NumberOfFrames') or 1)
  if height * width > images.MAX_PIXELS:
    raise images.Unreadable(f'image too large: {width} x {height} pixels, at most {images.MAX_PIXELS}')
  if frames != 1:
    raise images.Unreadable(f'DICOM with several frames: {frames}')
  if syntax in RAW:
    return
  refuse_depth(header)
  stream = encaps.get_frame(header.PixelData, 0, number_of_frames=1)
  size = (find_jpeg2000_size if syntax in JPEG2000 else find_jpeg_size)(stream)
  if size != (height, width):
    raise images.Unreadable(f'DICOM of two sizes: {width} x {height} in the header, {size[1]} x {size[0]} in its JPEG')


def refuse_depth(header):
  """Raises Unreadable for numbers of bits with which GDCM ends the program instead of an error."""
  allocated, stored, samples = (int(header[name].value) for name in ('BitsAllocated', 'BitsStored', 'SamplesPerPixel'))
  if allocated not in (8, 16) or not 1 <= stored <= allocated or samples not in (1, 3):
    raise images.Unreadable(f'compressed DICOM of {samples} samples of {stored} bits in {allocated}')


def find_jpeg_size(stream):
  """(height, width) from the frame header of a JPEG or JPEG-LS stream."""
  place = 2
  while stream[place] == 0xFF:
    marker = stream[place + 1]
    if marker in SIZED:
      return int.from_bytes(stream[place + 5:place + 7]), int.from_bytes(stream[place + 7:place + 9])
    # 0xFF may be repeated before a marker
    place += 1 if marker == 0xFF else 2 + int.from_bytes(stream[place + 2:place + 4])
  raise ValueError('JPEG stream without frame header')


def find_jpeg2000_size(stream):
  """(height, width) from the SIZ segment, which comes first; the stream may lie in a JP2 file."""
  place = stream.index(b'\xff\x4f\xff\x51') + 8
  right, bottom, left, top = (int.from_bytes(stream[at:at + 4]) for at in range(place, place + 16, 4))
  return bottom - top, right - left


def develop(header, stored):
  """Stored values of a DICOM image to HW uint8, bone bright."""
  kind = header.PhotometricInterpretation
  if stored.shape[:2] != as_size(header):  # several frames, where there is more than the header says
    raise images.Unreadable(f'DICOM with more in it than its header says: {stored.shape}')
  if stored.ndim == 3:
    return np.asarray(PIL.Image.fromarray(stored).convert('L'))
  if kind not in ('MONOCHROME1', 'MONOCHROME2'):
    raise images.Unreadable(f'DICOM photometric interpretation not read: {kind}')
  inside = find_inside(header, stored)
  values = rescale(header, stored)
  share = show(header, values, inside)
  if share is not None:
    grey = np.rint(share * 255).astype(np.uint8)
  elif header.BitsStored <= 8 and stored.dtype == np.uint8:
    grey = stored
  else:
    grey = images.scale(values, None if inside is None else values[inside])
  grey = 255 - grey if kind == 'MONOCHROME1' else grey
  return grey if inside is None else np.where(inside, grey, 0).astype(np.uint8)


def find_inside(header, stored):
  """HW bool, false where the pixel pads the image to its rectangle; None where nothing pads."""
  if header.get('PixelPaddingValue') is None:
    return None
  ends = [header.PixelPaddingValue, header.get('PixelPaddingRangeLimit', header.PixelPaddingValue)]
  inside = (stored < min(ends)) | (stored > max(ends))
  return inside if inside.any() else None


def rescale(header, stored):
  """Stored values to the modality's, float32: a table, or slope and intercept."""
  if header.get('ModalityLUTSequence'):
    return pixels.apply_modality_lut(stored, header).astype(np.float32)
  slope, intercept = header.get('RescaleSlope'), header.get('RescaleIntercept')
  return stored.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)


def show(header, values, inside):
  """Values through the first VOI table or window to HW float32 from 0 to 1; None where there is none of use."""
  if header.get('VOILUTSequence'):
    looked_up = pixels.apply_voi(np.rint(values).astype(np.int32), header).astype(np.float32)
    share = looked_up / max(float(np.max(header.VOILUTSequence[0].LUTData)), 1.0)
  elif header.get('WindowCenter') is not None and header.get('WindowWidth') is not None:
    centre, width = (np.float32(first(header[name].value)) for name in ('WindowCenter', 'WindowWidth'))
    function = header.get('VOILUTFunction', 'LINEAR')
    if function == 'SIGMOID':
      share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / max(width, np.float32(1e-3)), -80, 80)))
    else:
      exact = function == 'LINEAR_EXACT'
      centre, width = (centre, width) if exact else (centre - np.float32(0.5), width - 1)
      share = np.clip((values - centre) / max(width, np.float32(1e-3)) + np.float32(0.5), 0, 1)
  else:
    return None
  seen = (share > 1 / 255) & (share < 254 / 255)
  return share if (seen if inside is None else seen[inside]).mean() >= SHOWN else None


def first(value):
  return value[0] if isinstance(value, pydicom.multival.MultiValue) else value
