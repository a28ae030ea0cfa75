"""Damage that any file can suffer: functions (rng, bytes) -> bytes."""
from benchmarks.fuzz import values


def flip(rng, raw):
  """One to twenty bytes anywhere, half of the time among the first 200, where headers are."""
  raw = bytearray(raw)
  reach = min(len(raw), 200) if rng.random() < 0.5 else len(raw)
  for place in rng.integers(0, reach, rng.integers(1, 21)) if reach else ():
    raw[place] ^= rng.integers(1, 256)
  return bytes(raw)


def truncate(rng, raw):
  return raw[:rng.integers(0, max(len(raw), 1))]


def empty(rng, raw):
  return b''


def insert(rng, raw):
  place = rng.integers(0, len(raw) + 1)
  return raw[:place] + values.some_bytes(rng, 64) + raw[place:]


def blank(rng, raw):
  """A run of zeros, as a disk leaves it."""
  start = rng.integers(0, max(len(raw), 1))
  end = min(len(raw), start + rng.integers(1, 513))
  return raw[:start] + bytes(end - start) + raw[end:]


def replace(rng, raw):
  return values.pick(rng, (
    b'<!DOCTYPE html><html>please log in</html>', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
    b'\0' * 4096, b'PK\x03\x04' + raw, b'\x1f\x8b' + raw, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', b'\n'))


KINDS = {'bytes flipped': flip, 'truncated': truncate, 'emptied': empty, 'bytes inserted': insert,
         'zeros written': blank, 'other contents': replace}
