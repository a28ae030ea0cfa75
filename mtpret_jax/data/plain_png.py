"""Reads PNG as the builders write small images: 8-bit grey, uncompressed, unfiltered. Pixels are copied, not decoded.

A PNG library spends most of its time on two checksums over all pixels. They are not verified here: array_record has
already verified its own checksum of the whole record.
"""

import struct

import numpy as np

SIGNATURE = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4s', 13, b'IHDR')
GREY = bytes([8, 0, 0, 0, 0])  # bit depth, grey, the only compression, the only filter method, not interlaced
HEADER_BYTES = len(SIGNATURE) + 13 + 4  # until the second chunk
CHECKSUM_BYTES = 4  # at the end of the zlib stream


def read(encoded: bytes) -> np.ndarray | None:
  """PNG bytes -> (H, W) uint8, a read-only view; None for any other PNG or image, and for truncated bytes."""
  if encoded[:16] != SIGNATURE or encoded[24:29] != GREY:
    return None
  width, height = struct.unpack_from('>II', encoded, 16)
  try:
    rows = np.frombuffer(join_blocks(join_chunks(encoded)), np.uint8)
  except (struct.error, IndexError):
    return None
  if not width * height or rows.size != height * (width + 1):
    return None
  filters, pixels = np.split(rows.reshape(height, width + 1), [1], axis=1)  # each row starts with its filter, 0 is none
  return None if filters.any() else pixels


def join_chunks(encoded: bytes) -> bytes:
  """The zlib stream, which is spread over IDAT chunks; empty if there are chunks of other kinds, such as text."""
  offset, parts, view = HEADER_BYTES, [], memoryview(encoded)
  while (kind := encoded[offset + 4:offset + 8]) == b'IDAT':
    length, = struct.unpack_from('>I', encoded, offset)
    parts.append(view[offset + 8:offset + 8 + length])
    offset += 12 + length
  return b''.join(parts) if kind == b'IEND' else b''


def join_blocks(stream: bytes) -> bytes:
  """The content of a zlib stream (RFC 1950, 1951) of stored blocks; empty if it has other blocks or is malformed."""
  method, flags = struct.unpack_from('<BB', stream)
  if method & 15 != 8 or flags & 32 or (256 * method + flags) % 31:
    return b''
  offset, parts, view, is_last = 2, [], memoryview(stream), False
  while not is_last:
    kind, length, inverse = struct.unpack_from('<BHH', stream, offset)
    if kind > 1 or length ^ inverse != 0xffff:
      return b''
    is_last = kind == 1
    parts.append(view[offset + 5:offset + 5 + length])
    offset += 5 + length
  return b''.join(parts) if offset + CHECKSUM_BYTES == len(stream) else b''
