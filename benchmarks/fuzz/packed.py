"""Hostile or damaged zip and tar files for `tfds_builders.unpack`."""

import gzip
import io
import pathlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from benchmarks.fuzz import archives, judge, values
from benchmarks.fuzz import raw as raws
from benchmarks.fuzz.values import Report, Run
from tfds_builders import unpack

ENDINGS = ('.zip', '.tar', '.tgz')

NAMES = ('/etc/x', '../x', 'a/../../x', '..\\x', 'C:/x', 'C:x', '//x', '.', '..', '', '/', 'a\0b', 'x' * 300,
         'a/' * 600 + 'b', 'a\nb', 'ä', '🩻', 'a/./b', 'a//b', '.x', '__MACOSX/x', 'good/1', 'good', 'good/1/x', '~/x',
         '-x', ' ', 'con', '\\x')
GOOD = {f'good/{i}': bytes([65 + i]) * 700 + bytes(range(256)) for i in range(4)}


def make(folder: pathlib.Path) -> Run:
  """Cases of packed files."""
  return run


def run(rng: np.random.Generator, case: pathlib.Path, report: Report) -> str:
  kind = values.pick(rng, tuple(KINDS))
  path = case / f'set{values.pick(rng, ENDINGS)}'
  KINDS[kind](rng, path)
  report(('unpack', kind))
  before = archives.list_tree(case)
  try:
    target = unpack.unpack(path, case / 'prepared')
  except Exception as error:
    judge.judge_error(error, 'unpack', path, ())
    outcome = 'refused'
    left = list((case / 'prepared').rglob('*'))
    judge.demand(not left, f'left behind: {left[:3]}')
  else:
    outcome = 'whole'
    judge_unpacked(target, kind, path.suffix)
  archives.judge_tree(case, before)
  return outcome


def judge_unpacked(target: pathlib.Path, kind: str, ending: str) -> None:
  for path in target.rglob('*'):
    judge.demand(not path.is_symlink() and (path.is_file() or path.is_dir()), f'unpacked what is not a file: {path}')
  # A plain tar has checksums of its headers only, so damage inside a file cannot be noticed.
  if kind in ('packed: damaged', 'packed: headers lie') and ending != '.tar':
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob('*') if path.is_file()}
    judge.demand(found == GOOD, f'unpacked to something else: {sorted(found)}')


def hostile_name(rng: np.random.Generator, path: pathlib.Path) -> None:
  write(path, {**GOOD, values.pick(rng, NAMES): b'harm'})


def hostile_kind(rng: np.random.Generator, path: pathlib.Path) -> None:
  """A link, device or pipe, or a file below a link."""
  target = values.pick(rng, ('/etc/passwd', '..', '../../outside', 'good/1'))
  if path.suffix == '.zip':
    entry = zipfile.ZipInfo('odd')
    kinds = stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK
    entry.external_attr = values.pick(rng, kinds) << 16
    with zipfile.ZipFile(path, 'w') as file:
      file.writestr(entry, target)
      file.writestr('odd/x', b'harm')
    return
  with tarfile.open(path, mode(path)) as file:
    entry = tarfile.TarInfo('odd')
    entry.type, entry.linkname = values.pick(rng, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
                                                   tarfile.FIFOTYPE, b'Z')), target
    file.addfile(entry)
    add(file, 'odd/x', b'harm')


def bomb(rng: np.random.Generator, path: pathlib.Path) -> None:
  """A zip bomb: one large file, many files, or a gzip stream without an archive in it."""
  way = rng.integers(3)
  if way == 0:
    write(path, {'zeros': bytes(100 * 2**20)})
  elif way == 1:
    write(path, {f'{i}': bytes(10 * 2**20) for i in range(12)})
  else:
    path.write_bytes(gzip.compress(bytes(100 * 2**20), 9))


def lie(rng: np.random.Generator, path: pathlib.Path) -> None:
  """Wrong sizes, offsets, flags or checksums."""
  write(path, GOOD)
  raw = bytearray(path.read_bytes())
  if path.suffix == '.zip':
    marks = [place for mark in (b'PK\1\2', b'PK\3\4', b'PK\5\6') for place in find_all(raw, mark)]
    place = values.pick(rng, marks) + rng.integers(4, 46)
    raw[place:place + 4] = values.pick(rng, (bytes(4), b'\xff' * 4, b'\1\0\0\0', values.some_bytes(rng, 4).ljust(4)))
  else:
    raw = bytearray(unzipped(path))
    place = values.pick(rng, [mark - 257 for mark in find_all(raw, b'ustar')])
    sizes = b'77777777777\0', b'\x80' + b'\xff' * 11, b'-0000000001\0', bytes(12)
    raw[place + 124:place + 136] = values.pick(rng, sizes)
    raw[place + 148:place + 156] = b'%06o\0 ' % (sum(raw[place:place + 148]) + 256 + sum(raw[place + 156:place + 512]))
    if path.suffix == '.tgz':
      raw = gzip.compress(raw)
  path.write_bytes(raw)


def damage(rng: np.random.Generator, path: pathlib.Path) -> None:
  write(path, GOOD)
  path.write_bytes(values.pick(rng, tuple(raws.KINDS.values()))(rng, path.read_bytes()))


def other_kind(rng: np.random.Generator, path: pathlib.Path) -> None:
  """The contents are of another format than the name says, or packed twice."""
  write(path, GOOD)
  raw = path.read_bytes()
  path.write_bytes(values.pick(rng, (
    b'Rar!\x1a\x07' + raw, b'7z\xbc\xaf\x27\x1c' + raw, gzip.compress(raw), gzip.compress(gzip.compress(raw)),
    raw + raw, raw * 3, zlib.compress(raw), b'#!/bin/sh\n' + raw, bytes(1024), bytes(10240))))


KINDS = {'packed: names': hostile_name, 'packed: links, devices': hostile_kind, 'packed: bombs': bomb,
         'packed: headers lie': lie, 'packed: damaged': damage, 'packed: other format': other_kind}


def write(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
      for name, data in files.items():
        file.writestr(zipfile.ZipInfo(name or 'x'), data, zipfile.ZIP_DEFLATED)
  else:
    with tarfile.open(path, mode(path)) as file:
      for name, data in files.items():
        add(file, name, data)


def add(file: tarfile.TarFile, name: str, data: bytes) -> None:
  entry = tarfile.TarInfo(name)
  entry.size = len(data)
  file.addfile(entry, io.BytesIO(data))


def mode(path: pathlib.Path) -> Literal["w", "w:gz"]:
  return 'w:gz' if path.suffix == '.tgz' else 'w'


def unzipped(path: pathlib.Path) -> bytes:
  return gzip.decompress(path.read_bytes()) if path.suffix == '.tgz' else path.read_bytes()


def find_all(raw: bytes | bytearray, mark: bytes) -> Iterator[int]:
  place = raw.find(mark)
  while place >= 0:
    yield place
    place = raw.find(mark, place + 1)
