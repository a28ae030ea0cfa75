"""PNG as the builders write small images: grey, 8 bits, uncompressed, unfiltered. What is read of it is copied, not
decoded.

A library computes two check sums of all pixels, most of its time. They are not compared here: array_record has compared
its own of the whole record by then.
"""

import struct

import numpy as np

SIGNATURE = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4s', 13, b'IHDR')
GREY = bytes([8, 0, 0, 0, 0])  # bits, no colour, the one compression, the one set of filters, no interlace
HEADER = len(SIGNATURE) + 13 + 4  # bytes until the second chunk
CHECK = 4  # bytes of the check sum at the end of the stream


def read(encoded):
  """PNG bytes -> (H, W) uint8, a view that cannot be written to; None of any other PNG, such as one with notes or of
  other structure, and of what is none or broken off."""
  if encoded[:16] != SIGNATURE or encoded[24:29] != GREY:
    return None
  width, height = struct.unpack_from('>II', encoded, 16)
  try:
    rows = np.frombuffer(join_blocks(join_chunks(encoded)), np.uint8)
  except (struct.error, IndexError):
    return None
  if not width * height or rows.size != height * (width + 1):
    return None
  filters, pixels = np.split(rows.reshape(height, width + 1), [1], axis=1)
  return None if filters.any() else pixels


def join_chunks(encoded):
  """The compressed stream, which lies in several chunks; nothing where there are chunks of other kinds."""
  at, parts, view = HEADER, [], memoryview(encoded)
  while (kind := encoded[at + 4:at + 8]) == b'IDAT':
    length, = struct.unpack_from('>I', encoded, at)
    parts.append(view[at + 8:at + 8 + length])
    at += 12 + length
  return b''.join(parts) if kind == b'IEND' else b''


def join_blocks(stream):
  """What a zlib stream (RFC 1950, 1951) holds in stored blocks; nothing where it has others, or another structure."""
  method, flags = struct.unpack_from('<BB', stream)
  if method & 15 != 8 or flags & 32 or (256 * method + flags) % 31:
    return b''
  at, parts, view, is_last = 2, [], memoryview(stream), False
  while not is_last:
    kind, length, inverse = struct.unpack_from('<BHH', stream, at)
    if kind > 1 or length ^ inverse != 0xffff:
      return b''
    is_last = kind == 1
    parts.append(view[at + 5:at + 5 + length])
    at += 5 + length
  return b''.join(parts) if at + CHECK == len(stream) else b''
