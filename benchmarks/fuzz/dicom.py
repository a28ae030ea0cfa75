"""Single DICOM files in every encoding, damaged or with a wrong header."""

import io
import logging
import pathlib
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import PIL.Image
import pydicom
from pydicom import encaps, uid

from benchmarks.fuzz import judge, pictures, raw, values
from benchmarks.fuzz.values import Report, Run
from tfds_builders.common import decoded, dicom, image_files, images

HEIGHT, WIDTH = 40, 60  # px
WAYS = ('raw 8', 'raw 16', 'signed', 'rle', 'jpeg', 'jpeg 2000', 'colour', 'tables')
ODD_SEQUENCES = ('ModalityLUTSequence', 'VOILUTSequence')


def make(folder: pathlib.Path) -> Run:
  """Cases of DICOM files."""
  warnings.filterwarnings('ignore')
  logging.getLogger('pydicom').setLevel(logging.CRITICAL)
  pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # as another library may have set it
  whole = {way: write(way) for way in WAYS}
  for data in whole.values():
    decoded.to_grey(image_files.decode(data))
  return lambda rng, case, report: run(rng, case, report, whole)


def write(way: str) -> bytes:
  """The bytes of an undamaged file, encoded in one of WAYS."""
  stored = np.linspace(3, 250, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
  kind = {'raw 16': np.uint16, 'signed': np.int16, 'tables': np.uint16, 'rle': np.uint16}.get(way, np.uint8)
  stored = (stored * (16 if kind != np.uint8 else 1) - (1000 if kind == np.int16 else 0)).astype(kind)
  header = pydicom.dcmread(io.BytesIO(pictures.wrap(stored)))
  if way == 'colour':
    header.SamplesPerPixel, header.PlanarConfiguration, header.PhotometricInterpretation = 3, 0, 'RGB'
    header.PixelData = np.repeat(stored[..., None], 3, axis=2).tobytes()
  elif way == 'tables':
    for name in ODD_SEQUENCES:
      setattr(header, name, [make_table(len(np.unique(stored)))])
  elif way == 'signed':
    header.RescaleSlope, header.RescaleIntercept = '0.5', '100'
    header.add_new('PixelPaddingValue', 'SS', -1000)
    header.WindowCenter, header.WindowWidth = ['300', '1'], ['900', '5']
  elif way == 'rle':
    header.compress(uid.RLELossless)
  elif way in ('jpeg', 'jpeg 2000'):
    stream = io.BytesIO()
    picture = PIL.Image.fromarray(stored)
    picture.save(stream, 'JPEG') if way == 'jpeg' else picture.save(stream, 'JPEG2000', no_jp2=True)
    header.PixelData = encaps.encapsulate([stream.getvalue()])
    header['PixelData'].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit if way == 'jpeg' else uid.JPEG2000Lossless
  out = io.BytesIO()
  header.save_as(out, enforce_file_format=True)
  return out.getvalue()


def make_table(entries: int, bits: int = 16) -> pydicom.Dataset:
  table = pydicom.Dataset()
  table.add_new('LUTDescriptor', 'US', [entries, 0, bits])
  table.add_new('LUTData', 'US', np.linspace(0, 2**bits - 1, entries).astype(int).tolist())
  return table


def flip_header(rng: np.random.Generator, data: bytes) -> bytes:
  """Changes bytes before the pixels: lengths, tags and types of elements."""
  end = max(data.rfind(b'\xe0\x7f\x10\x00'), 200)
  data = bytearray(data)
  for place in rng.integers(128, min(end + 16, len(data)), rng.integers(1, 6)):
    data[place] = values.pick(rng, (0, 1, 2, 8, 16, 127, 128, 255, int(rng.integers(256))))
  return bytes(data)


def odd_table(rng: np.random.Generator, data: bytes) -> bytes:
  """Adds a lookup table whose descriptor does not fit it."""
  header = pydicom.dcmread(io.BytesIO(data))
  table = make_table(16)
  descriptor = [values.pick(rng, (0, 1, 16, 17, 65535)), values.pick(rng, (0, 5, 65535)),
                values.pick(rng, (0, 8, 12, 16, 40))]
  table.add_new('LUTDescriptor', 'US', descriptor[:rng.integers(1, 4)])
  if rng.random() < 0.3:
    del table[values.pick(rng, ('LUTData', 'LUTDescriptor'))]
  setattr(header, values.pick(rng, ODD_SEQUENCES), [table] * int(rng.integers(0, 3)))
  out = io.BytesIO()
  header.save_as(out)
  return out.getvalue()


def nest(rng: np.random.Generator, data: bytes) -> bytes:
  """Inserts nested sequences before the pixels, with and without an end."""
  tag = b'\x08\x00\x40\x11SQ\0\0'
  depth = values.pick(rng, (3, 200, 5000, 50_000))
  open_item = b'\xfe\xff\x00\xe0\xff\xff\xff\xff'
  close = (b'\xfe\xff\x0d\xe0' + bytes(4) + b'\xfe\xff\xdd\xe0' + bytes(4)) * (depth if rng.random() < 0.5 else 0)
  place = data.index(b'\x28\x00\x02\x00')
  return data[:place] + (tag + b'\xff\xff\xff\xff' + open_item) * depth + close + data[place:]


def swap_syntax(rng: np.random.Generator, data: bytes) -> bytes:
  """Names another transfer syntax than the one of the pixels."""
  header = pydicom.dcmread(io.BytesIO(data))
  header.file_meta.TransferSyntaxUID = uid.UID(values.pick(rng, (
    *pictures.SYNTAXES, uid.ImplicitVRLittleEndian, uid.JPEGExtended12Bit, uid.JPEGLosslessSV1,
    uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K, '', '1.2.840.10008.1.2.4.999')), validation_mode=0)
  out = io.BytesIO()
  try:
    pydicom.dcmwrite(out, header, little_endian=True, implicit_vr=False)
  except Exception:  # pydicom does not write every such file; change bytes instead
    return flip_header(rng, data)
  return out.getvalue()


def flip_stream(rng: np.random.Generator, data: bytes) -> bytes:
  """Changes bytes of the pixels, where a compressed stream has headers of its own."""
  start = max(data.rfind(b'\xe0\x7f\x10\x00'), 0)
  return data[:start] + raw.flip(rng, data[start:])


KINDS = {'DICOM: elements': pictures.head_dicom, 'DICOM: header flipped': flip_header, 'DICOM: tables': odd_table,
         'DICOM: sequences': nest, 'DICOM: other syntax': swap_syntax, 'DICOM: pixels flipped': flip_stream,
         'DICOM: truncated': raw.truncate, 'DICOM: bytes inserted': raw.insert, 'DICOM: zeros': raw.blank}


def run(rng: np.random.Generator, case: pathlib.Path, report: Report, whole: Mapping[str, bytes]) -> str:
  way, kind = values.pick(rng, WAYS), values.pick(rng, tuple(KINDS))
  report((way, kind))
  path = case / 'image.dcm'
  path.write_bytes(KINDS[kind](rng, whole[way]))
  outcomes = [judge_read(read, path) for read in (images.read, dicom.read_size)]
  return outcomes[0]


def judge_read(read: Callable, path: pathlib.Path) -> str:
  """Accepted outcomes: an image that has a size, or `Unreadable` with a reason of one line."""
  try:
    result = read(path)
  except decoded.Unreadable as error:
    judge.judge_line(str(error))
    return 'refused'
  if read is images.read:
    judge.demand(result.dtype == np.uint8 and result.ndim == 2 and result.size, f'{result.dtype} of {result.shape}')
    judge.demand(result.size <= decoded.MAX_PIXELS, f'{result.shape} pixels')
  else:
    judge.demand(len(result) == 2 and min(result) > 0, f'a size of {result}')
  return 'whole'
