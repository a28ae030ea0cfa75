"""Damages to pictures: functions (rng, bytes of a picture) -> bytes."""

import io
import math
import struct
import zlib

import numpy as np
import PIL.Image
import pydicom

from benchmarks.fuzz import raw as raws
from benchmarks.fuzz import values

SIDES = (0, 1, 2, 47, 49, 255, 9_000, 65_535, 2**31 - 1, 2**32 - 1)
FIELDS = (  # DICOM elements, with values that some readers cannot handle
  ('Rows', (0, 1, 65535, None)), ('Columns', (0, 1, 65535, None)), ('SamplesPerPixel', (0, 3, 4)),
  ('PhotometricInterpretation', ('', 'RGB', 'PALETTE COLOR', 'YBR_FULL', 'MONOCHROME9', 'x' * 300)),
  ('BitsAllocated', (0, 1, 7, 8, 16, 32, 64)), ('BitsStored', (0, 1, 8, 16, 17, 255)), ('HighBit', (0, 40)),
  ('PixelRepresentation', (0, 1, 2)), ('NumberOfFrames', ('0', '-1', '2', '99999999999', 'x')),
  ('WindowCenter', ('nan', 'inf', '', 'x', '1e308')), ('WindowWidth', ('0', '-5', 'nan', 'x', '1e-300')),
  ('RescaleSlope', ('0', 'nan', 'inf', '1e308', 'x')), ('RescaleIntercept', ('nan', '-inf', 'x')),
  ('PixelPaddingValue', (0, 65535, 300)), ('VOILUTFunction', ('SIGMOID', 'x')), ('PixelData', (b'', b'\0', None)))
SYNTAXES = (pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEG2000Lossless, pydicom.uid.RLELossless,
            pydicom.uid.JPEGLSLossless, pydicom.uid.DeflatedExplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian,
            pydicom.uid.MPEG2MPML, '1.2.3')


def head_png(rng: np.random.Generator, raw: bytes) -> bytes:
  """Another size, depth, colour type or interlacing in the header, with a correct checksum."""
  raw = as_kind(raw, 'PNG')
  header = list(struct.unpack('>IIBBBBB', raw[16:29]))
  for _ in range(rng.integers(1, 3)):
    place = rng.integers(0, 7)
    header[place] = values.pick(rng, SIDES if place < 2 else (0, 1, 2, 3, 4, 6, 8, 16, 255))
  return raw[:8] + chunk(b'IHDR', struct.pack('>IIBBBBB', *header)) + raw[33:]


def chunk_png(rng: np.random.Generator, raw: bytes) -> bytes:
  """Inserts a chunk: one of a wrong length, a second copy, or text, frames or a palette."""
  raw = as_kind(raw, 'PNG')
  odd = values.pick(rng, (
    chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(2**27))), chunk(b'acTL', struct.pack('>II', 2**31 - 1, 0)),
    chunk(b'PLTE', b'\0' * 7), chunk(b'tRNS', b'\0\1'), chunk(b'IDAT', zlib.compress(b'\0' * 99)), raw[8:33],
    chunk(b'gAMA', b'\0\0\0\1'), chunk(b'eXIf', b'MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0'),
    chunk(b'IEND', b''), struct.pack('>I', 2**31 - 1) + b'teXt', chunk(b'AbCd', b'?'),
    chunk(b'iCCP', b'x\0\0' + zlib.compress(bytes(2**27)))))
  return raw[:33] + odd + raw[33:]


def head_jpeg(rng: np.random.Generator, raw: bytes) -> bytes:
  """Changes a byte in a segment before the scan, most often of the frame's size."""
  raw = bytearray(as_kind(raw, 'JPEG'))
  frame = raw.index(b'\xff\xc0')
  place = rng.integers(frame, frame + 12) if rng.random() < 0.7 else rng.integers(0, raw.index(b'\xff\xda') + 8)
  raw[place] = rng.integers(0, 256)
  return bytes(raw)


def head_bmp(rng: np.random.Generator, raw: bytes) -> bytes:
  raw = bytearray(as_kind(raw, 'BMP'))
  for place in rng.integers(0, 54, rng.integers(1, 4)):
    raw[place] = values.pick(rng, (0, 1, 8, 127, 255))
  return bytes(raw)


def head_dicom(rng: np.random.Generator, raw: bytes) -> bytes:
  """Elements with wrong values, another transfer syntax, or flipped bytes of the header."""
  raw = as_dicom(raw)
  choice = rng.random()
  if choice < 0.2:
    return raws.flip(rng, raw[:900]) + raw[900:]
  pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
  header = pydicom.dcmread(io.BytesIO(raw))
  for _ in range(rng.integers(1, 3)):
    name, odd = values.pick(rng, FIELDS)
    value = values.pick(rng, odd)
    if value is None:
      header.pop(name, None)
    else:
      text = isinstance(value, str)
      tag = pydicom.datadict.tag_for_keyword(name)
      kind = pydicom.datadict.dictionary_VR(tag).split(' ')[0]
      # pydicom writes such a value only as text. A reader that trusts the tag still takes it for a number.
      header[tag] = pydicom.DataElement(tag, 'LO' if text and kind != 'CS' else kind, value, validation_mode=0)
  if choice < 0.35:
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(values.pick(rng, SYNTAXES), validation_mode=0)
  out = io.BytesIO()
  try:
    pydicom.dcmwrite(out, header, little_endian=True, implicit_vr=False)
  except Exception:  # pydicom does not write every such file; change bytes instead
    return raws.flip(rng, raw[:900]) + raw[900:]
  return out.getvalue()


def other_kind(rng: np.random.Generator, raw: bytes) -> bytes:
  """The picture in another format, depth or mode, or of an extreme shape."""
  image = PIL.Image.fromarray(as_grey(raw))
  deep = np.asarray(image).astype(np.float32)
  image = values.pick(rng, (
    image, image.convert('1'), image.convert('RGBA'), image.convert('P'), image.convert('CMYK'), image.convert('LA'),
    PIL.Image.fromarray(deep.astype(np.uint16) * 257), PIL.Image.fromarray(deep * np.float32('nan')),
    PIL.Image.fromarray(deep * np.float32(1e36)), PIL.Image.fromarray(deep.astype(np.int32) * -(2**23)),
    image.resize((1, 1)), image.resize((1, 3000)), image.resize((60_000, 1))))
  out = io.BytesIO()
  kind = values.pick(rng, ('PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM', 'JPEG2000', 'EPS', 'PDF'))
  try:
    image.save(out, kind)
  except (OSError, ValueError, KeyError):  # not every format takes every mode; TIFF does
    out = io.BytesIO()
    image.save(out, 'TIFF')
  return out.getvalue()


def bomb(rng: np.random.Generator, raw: bytes) -> bytes:
  """A few bytes that decode to many pixels, at the limit or above."""
  side = values.pick(rng, (7_000, 9_900, 12_000, 40_000))
  depth, colour, wide = values.pick(rng, ((8, 0, 1), (16, 0, 2), (8, 2, 3), (1, 0, 0.125), (8, 4, 2)))
  pack, row = zlib.compressobj(1), bytes(1 + math.ceil(side * wide))
  lines = side if side < 40_000 else 100  # a file that is refused by its header need not be complete
  body = b''.join([*(pack.compress(row) for _ in range(lines)), pack.flush()])
  header = struct.pack('>IIBBBBB', side, side, depth, colour, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def chunk(name: bytes, body: bytes) -> bytes:
  return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def as_grey(raw: bytes) -> np.ndarray:
  """HW uint8 of an undamaged picture."""
  if raw[128:132] == b'DICM':
    stored = pydicom.dcmread(io.BytesIO(raw)).pixel_array
    return (stored >> max(int(stored.max()).bit_length() - 8, 0)).astype(np.uint8)
  return np.asarray(PIL.Image.open(io.BytesIO(raw)).convert('L'))


def as_kind(raw: bytes, kind: str) -> bytes:
  out = io.BytesIO()
  PIL.Image.fromarray(as_grey(raw)).save(out, kind)
  return out.getvalue()


def as_dicom(raw: bytes) -> bytes:
  if raw[128:132] == b'DICM':
    return raw
  return wrap(as_grey(raw))


def wrap(stored: np.ndarray) -> bytes:
  """The bytes of a plain DICOM file with these stored values, HW of 8 or 16 bits."""
  bits = 8 * stored.itemsize
  header = pydicom.Dataset()
  header.file_meta = pydicom.dataset.FileMetaDataset()
  header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
  header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = '1.2.3'
  header.Rows, header.Columns = stored.shape
  header.SamplesPerPixel, header.PhotometricInterpretation = 1, 'MONOCHROME2'
  header.PixelRepresentation = int(stored.dtype.kind == 'i')
  header.BitsAllocated, header.BitsStored, header.HighBit = bits, bits, bits - 1
  header.PixelData = stored.tobytes()
  header['PixelData'].VR = 'OB' if bits == 8 else 'OW'
  out = io.BytesIO()
  header.save_as(out, enforce_file_format=True)
  return out.getvalue()


KINDS = {'PNG header': head_png, 'PNG chunk': chunk_png, 'JPEG header': head_jpeg, 'BMP header': head_bmp,
         'DICOM header': head_dicom, 'other format': other_kind, 'many pixels': bomb}
