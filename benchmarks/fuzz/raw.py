"""Damages to any file: functions (rng, bytes) -> bytes."""

import numpy as np

from benchmarks.fuzz import values


def flip(rng: np.random.Generator, raw: bytes) -> bytes:
  """Changes one to twenty bytes; in half of the cases among the first 200, where headers are."""
  raw = bytearray(raw)
  reach = min(len(raw), 200) if rng.random() < 0.5 else len(raw)
  for place in rng.integers(0, reach, rng.integers(1, 21)) if reach else ():
    raw[place] ^= rng.integers(1, 256)
  return bytes(raw)


def truncate(rng: np.random.Generator, raw: bytes) -> bytes:
  return raw[:rng.integers(0, max(len(raw), 1))]


def empty(rng: np.random.Generator, raw: bytes) -> bytes:
  return b''


def insert(rng: np.random.Generator, raw: bytes) -> bytes:
  place = rng.integers(0, len(raw) + 1)
  return raw[:place] + values.some_bytes(rng, 64) + raw[place:]


def blank(rng: np.random.Generator, raw: bytes) -> bytes:
  """A run of zeros, as a failed disk leaves it."""
  start = rng.integers(0, max(len(raw), 1))
  end = min(len(raw), start + rng.integers(1, 513))
  return raw[:start] + bytes(end - start) + raw[end:]


def replace(rng: np.random.Generator, raw: bytes) -> bytes:
  return values.pick(rng, (
    b'<!DOCTYPE html><html>please log in</html>', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
    b'\0' * 4096, b'PK\x03\x04' + raw, b'\x1f\x8b' + raw, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', b'\n'))


KINDS = {'bytes flipped': flip, 'truncated': truncate, 'emptied': empty, 'bytes inserted': insert,
         'zeros written': blank, 'other contents': replace}
