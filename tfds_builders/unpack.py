"""Unpacks downloads, each into its own folder, and rejects archives that are damaged or malicious.

    python -m tfds_builders.unpack NLMCXR_png.tgz NLMCXR_reports.tgz --archives /archives/indiana_cxr

A zip, tar or tar.gz file goes to <archives>/<its name without the suffix>. It is unpacked under a hidden name, which
builders ignore, and renamed once it is complete.
"""
import argparse
import functools
import gzip
import lzma
import os
import pathlib
import re
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from tfds_builders.common import archives, exits, paths, plain_text

SUFFIX = re.compile(r'\.(?:zip|tar|tar\.gz|tgz)$', re.IGNORECASE)
RATIO = 100  # allowed ratio of unpacked to packed size; images reach 3, tables and reports 20
SMALL = 64 * 2**20  # bytes that any archive may unpack to, whatever the ratio
TOTAL = 2**40  # bytes that no archive may exceed
MAX_NAME, MAX_PATH = 255, 3000  # bytes of a file's name and path; Linux allows 255 and 4096
FILES = 2_000_000  # files and folders per archive; NIH has 112,120
CHUNK = 2**20  # bytes read at a time; larger tar headers are refused
ZIP_END, ZIP64_END = 22 + 2**16, 76  # bytes of a zip's end record with the longest comment; of the zip64 end records
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
          NotImplementedError)  # what Python's readers raise on damage, besides OSError without an errno

# (name, bytes, function that opens the file; None for a folder)
Member = tuple[str, int, Callable[[], Any] | None]


class Refused(ValueError):
  """The archive is damaged, or does something that no dataset needs."""


def unpack(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> pathlib.Path:
  """Unpacks one archive.

  Junk (`archives.is_junk`) is skipped. Owners, permissions and times are not restored.

  Args:
    path: of a zip, tar or tar.gz file. Its first bytes decide which it is.
    folder: where the archive's own folder is made.

  Returns:
    The archive's own folder.

  Raises:
    Refused: not such a file, damaged or encrypted; an absolute path or one with `..`; a link, device or pipe; two
      entries with one name; beyond RATIO (and SMALL), TOTAL or FILES; the folder already exists. Nothing is left
      behind in these cases.
  """
  path, folder = pathlib.Path(path), pathlib.Path(folder)
  stem = SUFFIX.sub('', path.name)
  if not stem or stem == path.name or archives.is_junk(stem):
    raise Refused(f'{path}: the name must end in .zip, .tar, .tar.gz or .tgz')
  if not path.is_file():
    raise Refused(f'{path}: no such file')
  target, partial = folder / stem, folder / f'.{stem}.part'
  if target.exists():
    raise Refused(f'{path}: {target} already exists; delete it to unpack again')
  shutil.rmtree(partial, ignore_errors=True)  # from a run that was killed
  partial.mkdir(parents=True)
  try:
    write_members(path, partial)
    if not next(partial.iterdir(), None):  # a file of zeros, such as an unfinished download, is a valid empty tar
      raise Refused('the archive is empty')
    partial.rename(target)
  except Refused as error:
    raise Refused(f'{path}: {error}') from error
  except (*DAMAGE, OSError) as error:
    if isinstance(error, OSError) and error.errno is not None:
      error.filename = error.filename or str(partial)  # a full disk names no file
      raise
    raise Refused(f'{path}: damaged or in an unsupported format: {plain_text.as_reason(error)}') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return target


def write_members(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes the files of an archive below `folder` and counts every byte written."""
  limit = min(max(RATIO * path.stat().st_size, SMALL), TOTAL)
  total = 0
  for count, (name, size, open_member) in enumerate(list_members(path, limit), 1):
    if count > FILES:
      raise Refused(f'more than {FILES:,} entries')
    parts = split_path(name)
    if total + size > limit:
      raise Refused(f'unpacks to more than {limit:,} bytes, the limit for {path.stat().st_size:,} packed bytes')
    if any(map(archives.is_junk, parts)):
      continue
    target = folder.joinpath(*parts)
    try:
      if open_member is None:
        target.mkdir(parents=True, exist_ok=True)
        continue
      target.parent.mkdir(parents=True, exist_ok=True)
      with open_member() as packed, open(target, 'xb') as file:
        while chunk := packed.read(CHUNK):
          total += len(chunk)
          if total > limit:
            raise Refused(f'unpacks to more than {limit:,} bytes, although its table states less')
          file.write(chunk)
    except (FileExistsError, NotADirectoryError) as error:
      raise Refused(f'two entries with the same name: {name!r}') from error


def split_path(name: str) -> list[str]:
  """A member's path as parts; raises Refused if it would lead out of the folder or is too long."""
  parts = name.replace('\\', '/').split('/')
  if parts[0] == '' or re.match(r'[A-Za-z]:', name):
    raise Refused(f'an absolute path: {name!r}')
  if '..' in parts or '\0' in name:
    raise Refused(f'a path that leads out of the folder: {name!r}')
  if len(os.fsencode(name)) > MAX_PATH or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
    raise Refused(f'a name that is too long: {name[:80]!r}...')
  return [part for part in parts if part not in ('', '.')]


def list_members(path: pathlib.Path, limit: int) -> Iterator[Member]:
  """Yields the members of an archive in the order in which they are stored."""
  with open(path, 'rb') as file:
    gzipped = file.read(2) == b'\x1f\x8b'
  if zipfile.is_zipfile(path) and not gzipped:
    yield from list_zip(path)
  else:
    yield from list_tar(path, gzip.open if gzipped else open, limit)


def list_zip(path: pathlib.Path) -> Iterator[Member]:
  with zipfile.ZipFile(path) as file:
    listed, stated = len(file.infolist()), read_entry_count(path)
    if (listed - stated) % 2**16:
      raise Refused(f'damaged: its table lists {listed:,} entries, its end record states {stated:,}')
    for member in file.infolist():
      if not member.filename:
        raise Refused('damaged: an entry without a name')
      if not 0 <= member.header_offset < path.stat().st_size:
        raise Refused(f'damaged: {member.filename!r} lies outside the file')
      file_type = stat.S_IFMT(member.external_attr >> 16)
      if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused(f'a link or device: {member.filename!r}')
      if member.flag_bits & 1:
        raise Refused(f'encrypted: {member.filename!r}')
      is_folder = member.is_dir() or file_type == stat.S_IFDIR
      if is_folder and member.file_size:
        raise Refused(f'damaged: {member.filename!r} is a folder but has contents')
      yield member.filename, member.file_size, None if is_folder else functools.partial(file.open, member)


def read_entry_count(path: pathlib.Path) -> int:
  """The number of entries that a zip's end record states, modulo 2**16.

  zipfile does not compare it with its table. If a length in the table is damaged, zipfile takes the next entry for a
  comment and drops it silently.
  """
  with open(path, 'rb') as file:
    file.seek(-min(ZIP_END + ZIP64_END, path.stat().st_size), os.SEEK_END)
    tail = file.read()
  end = tail.rfind(b'PK\5\6')
  zip64 = end - ZIP64_END
  offset = zip64 + 32 if tail.startswith(b'PK\6\6', max(zip64, 0)) else end + 10
  return struct.unpack_from('<H', tail, offset)[0]


def list_tar(path: pathlib.Path, opener: Callable[..., Any], limit: int) -> Iterator[Member]:
  with opener(path, 'rb') as packed:
    stream = BoundedReader(packed, limit)
    with tarfile.open(fileobj=stream, mode='r:') as file:  # type: ignore[call-overload]
      for member in file:
        if not (member.isreg() or member.isdir()):
          raise Refused(f'a link or device: {member.name!r}')
        yield member.name, member.size, None if member.isdir() else functools.partial(file.extractfile, member)
        file.members.clear()  # tarfile keeps every member it has seen
      # At a damaged or missing header tarfile stops as if it were the end. The true end is a block of zeros.
      stream.seek(file.offset)
      if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Refused(f'damaged, or truncated after {file.offset:,} bytes')
      while stream.read(CHUNK):  # to the end, where gzip compares its checksum
        pass


class BoundedReader:
  """A stream that gives at most `limit` bytes, and few at a time: tarfile reads a header whole, whatever its size."""

  def __init__(self, stream: IO[bytes], limit: int) -> None:
    self.stream, self.limit = stream, limit + limit // 10 + SMALL  # headers and padding come on top of the files

  def read(self, size: int) -> bytes:
    if size > CHUNK or self.stream.tell() > self.limit:
      raise Refused(f'a tar header of {size:,} bytes' if size > CHUNK else 'unpacks to too much')
    return self.stream.read(size)

  def seek(self, offset: int) -> int:
    if offset < 0:
      raise Refused('damaged: a header with a negative size')
    if offset > self.limit:
      raise Refused('unpacks to too much')
    return self.stream.seek(offset)

  def tell(self) -> int:
    return self.stream.tell()


@exits.command
def main(arguments: Sequence[str] | None = None) -> int:
  """The command line; returns the exit code (`exits`) of the last archive that could not be unpacked, else 0."""
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.unpack', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('files', nargs='+', metavar='ARCHIVE', help='zip, tar or tar.gz file')
  parser.add_argument('--archives', required=True, help='folder in which each archive gets its own folder')
  flags = parser.parse_args(arguments)
  paths.check('--archives', flags.archives, paths.find_archives_defect)
  failed = 0
  for file in flags.files:
    try:
      target = unpack(file, flags.archives)
    except (Refused, OSError) as error:
      failed = exits.report(error)
      continue
    print(target)
    for inner in sorted(path for path in target.rglob('*') if SUFFIX.search(path.name)):
      print(f'  contains another archive; unpack it too: {inner}')
  return failed


if __name__ == '__main__':
  sys.exit(main())
