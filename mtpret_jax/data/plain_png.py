"""PNG as the builders write small images: grey, 8 bits, uncompressed, unfiltered. What is read of it is copied, not
decoded.

A library computes two check sums of all pixels, most of its time; array_record has compared its own by then.
"""

import struct

import numpy as np

SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER = 8 + 8 + 13 + 4  # bytes of the signature and the first chunk
GREY = bytes([8, 0, 0, 0, 0])  # bits, no colour, the one compression, the one set of filters, no interlace


def read(encoded):
  """PNG bytes -> (H, W) uint8; None of any other PNG, of what is none, and of what is broken off."""
  if encoded[:8] != SIGNATURE or encoded[24:29] != GREY:
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
  """The compressed stream, which lies in several chunks."""
  at, parts, view = HEADER, [], memoryview(encoded)
  while (kind := encoded[at + 4:at + 8]) != b'IEND':
    length, = struct.unpack_from('>I', encoded, at)
    if kind == b'IDAT':
      parts.append(view[at + 8:at + 8 + length])
    at += 12 + length
  return b''.join(parts)


def join_blocks(stream):
  """What a zlib stream (RFC 1950, 1951) holds in stored blocks; nothing where a block is compressed."""
  at, parts, view, is_last = 2, [], memoryview(stream), False
  while not is_last:
    if stream[at] > 1:
      return b''
    is_last, (length,) = stream[at] == 1, struct.unpack_from('<H', stream, at + 1)
    parts.append(view[at + 5:at + 5 + length])
    at += 5 + length
  return b''.join(parts)
