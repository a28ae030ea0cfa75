"""Image files byte by byte: kinds that Pillow does not write. Arguments are samples; functions return the file."""

import io
import struct
import zlib

import numpy as np
import PIL.ExifTags
import PIL.Image

UPRIGHT = {  # {EXIF orientation: (rows and columns swapped, then rows reversed, columns reversed)}; from the standard
  1: (0, 0, 0), 2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
TIFF_KINDS = {'u': 1, 'i': 2, 'f': 3}
TIFF_LONG = (254, 273, 279)  # tags of 32 bits; the others have 16


def turn_upright(stored, orientation):
  """HW or HWC as a viewer shows it."""
  swapped, rows, columns = UPRIGHT[orientation]
  shown = stored.swapaxes(0, 1) if swapped else stored
  return shown[::-1 if rows else 1, ::-1 if columns else 1]


def make_tiff(stored, bits=None, photometric=1, order='<', planes=1, deflate=False, extra=(), pages=(), **tags):
  """A TIFF of HW or HWC samples. `tags` are further ones as t274=6; None leaves one out. `pages` are more such files'
  (samples, tags)."""
  out = bytearray((b'II' if order == '<' else b'MM') + struct.pack(f'{order}HI', 42, 0))
  link = 4
  for samples, more in ((stored, tags), *pages):
    height, width = samples.shape[:2]
    count = samples.shape[2] if samples.ndim == 3 else 1
    depth = bits or 8 * samples.itemsize
    entries = {256: width, 257: height, 258: [depth] * count, 259: 8 if deflate else 1, 262: photometric, 277: count,
               278: height, 284: planes, 339: [TIFF_KINDS[samples.dtype.kind]] * count}
    entries |= {338: list(extra)} if extra else {}
    entries |= {int(name[1:]): value for name, value in more.items()}
    layers = [samples.reshape(height, -1)] if planes == 1 else [*np.moveaxis(np.atleast_3d(samples), -1, 0)]
    strips = [pack_bits(layer, depth, order) for layer in layers]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    entries[273], entries[279] = [], [len(strip) for strip in strips]
    for strip in strips:
      entries[273].append(len(out))
      out += strip + b'\0' * (len(strip) % 2)
    rows = b''
    for tag, value in sorted((tag, value) for tag, value in entries.items() if value is not None):
      value = value if isinstance(value, list) else [value]
      body = struct.pack(order + ('I' if tag in TIFF_LONG else 'H') * len(value), *value)
      if len(body) > 4:
        start, body = len(out), body + b'\0' * (len(body) % 2)
        out += body
        body = struct.pack(f'{order}I', start)
      rows += struct.pack(f'{order}HHI', tag, 4 if tag in TIFF_LONG else 3, len(value)) + body.ljust(4, b'\0')
    struct.pack_into(f'{order}I', out, link, len(out))
    out += struct.pack(f'{order}H', len(rows) // 12) + rows
    link = len(out)
    out += bytes(4)
  return bytes(out)


def pack_bits(samples, bits, order):
  """Rows of samples in `bits` bits each, filled up to whole bytes."""
  if bits % 8 == 0:
    return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
  spread = samples.astype(np.int64)[..., None] >> np.arange(bits - 1, -1, -1) & 1
  return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def make_png(stored, bits=None, *chunks):
  """A PNG of HW grey, HW2 grey and alpha, HW3 or HW4 samples. `chunks` come after the pixels."""
  height, width = stored.shape[:2]
  depth, colour = bits or 8 * stored.itemsize, (None, 0, 4, 2, 6)[stored.shape[2] if stored.ndim == 3 else 1]
  lines = pack_bits(stored.reshape(height, -1), depth, '>')
  step = len(lines) // height
  body = b''.join(b'\0' + lines[start:start + step] for start in range(0, len(lines), step))
  parts = [(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)), (b'IDAT', zlib.compress(body)),
           *chunks, (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data)) for name, data in parts)


def make_exif(orientation):
  exif = PIL.Image.Exif()
  exif[PIL.ExifTags.Base.Orientation] = orientation
  return exif


def encode(image, kind='PNG', **options):
  """The bytes of a Pillow image or an array in a format that Pillow writes."""
  out = io.BytesIO()
  image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
  image.save(out, kind, **options)
  return out.getvalue()


def make_palette(indices, colours):
  """A Pillow image of HW indices with these colours."""
  image = PIL.Image.fromarray(indices.astype(np.uint8), 'P')
  image.putpalette([value for colour in colours for value in colour])
  return image
