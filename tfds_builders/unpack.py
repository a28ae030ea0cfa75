"""Unpacks downloads, each into a folder of its own name, and trusts none of them.

    python -m tfds_builders.unpack NLMCXR_png.tgz NLMCXR_reports.tgz --archives /archives/indiana_cxr

A zip, tar or tar.gz file becomes <archives>/<its name without the ending>. It is unpacked under another name, which no
builder looks at, and renamed when it is whole.
"""
import argparse
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

from tfds_builders.common import archives

ENDING = re.compile(r'\.(?:zip|tar|tar\.gz|tgz)$', re.IGNORECASE)
RATIO = 100  # an archive may unpack to so many times its own size: images reach 3, tables and reports 20
SMALL = 64 * 2**20  # bytes to which any archive may unpack, whatever the ratio
TOTAL = 2**40  # bytes to which none may
NAME, PATH = 255, 3000  # bytes of a file's name and path; Linux allows 255 and 4096
FILES = 2_000_000  # files and folders it may hold; NIH's has 112,120
PIECE = 2**20  # bytes read at once; a tar header of more is refused
ZIP_END, LONG_END = 22 + 2**16, 76  # bytes of a zip's last record with the longest comment; of those for long zips
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
          NotImplementedError)  # what Python's readers make of it, besides OSError without a number


class Refused(ValueError):
  """The archive is damaged, or asks for something that no data set needs."""


def unpack(path, folder):
  """Unpacks one archive.

  Junk (`archives.is_junk`) is passed by. Owners, permissions and times are not taken over.

  Args:
    path: of a zip, tar or tar.gz file; what it is, is read from its first bytes.
    folder: where its own folder is made.

  Returns:
    pathlib.Path of its own folder.

  Raises:
    Refused: not such a file, damaged or encrypted; a path that is absolute or has `..`; a link, device or pipe; two
      entries of one name; more than RATIO (beyond SMALL), TOTAL or FILES allow; the folder is there already. Nothing
      is left behind then.
  """
  path, folder = pathlib.Path(path), pathlib.Path(folder)
  stem = ENDING.sub('', path.name)
  if stem == path.name or archives.is_junk(stem):
    raise Refused(f'{path}: not named like a zip, tar or tar.gz file')
  if not path.is_file():
    raise Refused(f'{path}: no such file')
  target, half = folder / stem, folder / f'.{stem}.part'
  if target.exists():
    raise Refused(f'{path}: {target} is there already; delete it to unpack again')
  shutil.rmtree(half, ignore_errors=True)  # of a run that was killed
  half.mkdir(parents=True)
  try:
    write_members(path, half)
    if not next(half.iterdir(), None):  # zeros, as of a download that was never filled, are a tar file
      raise Refused('holds nothing')
    half.rename(target)
  except Refused as error:
    raise Refused(f'{path}: {error}') from error
  except (*DAMAGE, OSError) as error:
    if getattr(error, 'errno', None) is None:
      raise Refused(f'{path}: damaged, or not packed as expected: {archives.escape(str(error))[:300]}') from error
    error.filename = error.filename or str(half)  # a full disk names none
    raise
  finally:
    shutil.rmtree(half, ignore_errors=True)
  return target


def write_members(path, folder):
  """Writes the files of an archive below `folder`, counting every byte on the way."""
  limit = min(max(RATIO * path.stat().st_size, SMALL), TOTAL)
  total = 0
  for count, (name, size, source) in enumerate(list_members(path, limit), 1):
    if count > FILES:
      raise Refused(f'more than {FILES:,} entries')
    parts = split_path(name)
    if total + size > limit:
      raise Refused(f'unpacks to more than {limit:,} bytes, as much as {path.stat().st_size:,} packed bytes may')
    if any(map(archives.is_junk, parts)):
      continue
    place = folder.joinpath(*parts)
    try:
      if source is None:
        place.mkdir(parents=True, exist_ok=True)
        continue
      place.parent.mkdir(parents=True, exist_ok=True)
      with source() as packed, open(place, 'xb') as file:
        while piece := packed.read(PIECE):
          total += len(piece)
          if total > limit:
            raise Refused(f'unpacks to more than {limit:,} bytes, whatever its table says')
          file.write(piece)
    except (FileExistsError, NotADirectoryError) as error:
      raise Refused(f'two entries of one name: {name!r}') from error


def split_path(name):
  """A member's path as parts, none of which leads out of the folder; a trailing slash is no part."""
  parts = name.replace('\\', '/').split('/')
  if parts[0] == '' or re.match(r'[A-Za-z]:', name):
    raise Refused(f'an absolute path: {name!r}')
  if '..' in parts or '\0' in name:
    raise Refused(f'a path that leads out of the folder: {name!r}')
  if len(os.fsencode(name)) > PATH or any(len(os.fsencode(part)) > NAME for part in parts):
    raise Refused(f'a name too long: {name[:80]!r}...')
  return [part for part in parts if part not in ('', '.')]


def list_members(path, limit):
  """Yields (name, bytes, function that opens it; None for a folder), in the order in which they lie in the archive."""
  with open(path, 'rb') as file:
    packed = file.read(2) == b'\x1f\x8b'
  if zipfile.is_zipfile(path) and not packed:
    yield from list_zip(path)
  else:
    yield from list_tar(path, gzip.open if packed else open, limit)


def list_zip(path):
  with zipfile.ZipFile(path) as file:
    there, told = len(file.infolist()), count_told(path)
    if (there - told) % 2**16:
      raise Refused(f'damaged: its table lists {there:,} entries, its end says {told:,}')
    for member in file.infolist():
      if not member.filename:
        raise Refused('damaged: an entry without a name')
      if not 0 <= member.header_offset < path.stat().st_size:
        raise Refused(f'damaged: {member.filename!r} lies outside of the file')
      kind = stat.S_IFMT(member.external_attr >> 16)
      if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused(f'a link or device: {member.filename!r}')
      if member.flag_bits & 1:
        raise Refused(f'encrypted: {member.filename!r}')
      folder = member.is_dir() or kind == stat.S_IFDIR
      if folder and member.file_size:
        raise Refused(f'damaged: {member.filename!r} is a folder and has contents')
      yield member.filename, member.file_size, None if folder else lambda member=member: file.open(member)


def count_told(path):
  """How many entries the end of a zip file says it has, modulo 2**16: zipfile does not compare, and where a length in
  the table is wrong, it takes the next entry for a comment."""
  with open(path, 'rb') as file:
    file.seek(-min(ZIP_END + LONG_END, path.stat().st_size), os.SEEK_END)
    tail = file.read()
  end = tail.rfind(b'PK\5\6')
  long = end - LONG_END
  place = long + 32 if tail.startswith(b'PK\6\6', max(long, 0)) else end + 10
  return struct.unpack_from('<H', tail, place)[0]


def list_tar(path, opener, limit):
  with opener(path, 'rb') as packed, tarfile.open(fileobj=Bounded(packed, limit), mode='r:') as file:
    for member in file:
      if not (member.isreg() or member.isdir()):
        raise Refused(f'a link or device: {member.name!r}')
      yield member.name, member.size, None if member.isdir() else lambda member=member: file.extractfile(member)
      file.members.clear()  # tarfile keeps all it has met
    # Where a header is damaged or not there, tarfile stops as if that were the end, which is a block of zeros.
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
      raise Refused(f'damaged, or broken off after {file.offset:,} bytes')
    while file.fileobj.read(PIECE):  # to the end, where gzip compares its checksum
      pass


class Bounded:
  """A stream that gives at most so many bytes, and few at once: tarfile reads headers whole, whatever size they say."""

  def __init__(self, stream, limit):
    self.stream, self.limit = stream, limit + limit // 10 + SMALL  # headers and padding come on top of the files

  def read(self, size):
    if size > PIECE or self.stream.tell() > self.limit:
      raise Refused(f'a tar header of {size:,} bytes' if size > PIECE else 'unpacks to too much')
    return self.stream.read(size)

  def seek(self, place):
    if place < 0:
      raise Refused('damaged: a header with a size below 0')
    if place > self.limit:
      raise Refused('unpacks to too much')
    return self.stream.seek(place)

  def tell(self):
    return self.stream.tell()


def main(arguments=None):
  parser = argparse.ArgumentParser(prog='python -m tfds_builders.unpack', description=__doc__.split('\n')[0])
  parser.add_argument('files', nargs='+', metavar='ARCHIVE', help='zip, tar or tar.gz')
  parser.add_argument('--archives', required=True, help='folder in which each gets a folder of its own')
  flags = parser.parse_args(arguments)
  failed = 0
  for file in flags.files:
    try:
      target = unpack(file, flags.archives)
    except (Refused, OSError) as error:
      print(error, file=sys.stderr)
      failed = 1
      continue
    print(target)
    for inner in sorted(path for path in target.rglob('*') if ENDING.search(path.name)):
      print(f'  holds an archive, to be unpacked in turn: {inner}')
  return failed


if __name__ == '__main__':
  sys.exit(main())
