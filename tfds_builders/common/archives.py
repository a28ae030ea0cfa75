"""Downloads as they lie on disk: find an archive, list its files, tell two apart."""
import collections
import csv
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import stat

DEPTH = 3  # folders below --archives that are searched
CROWD = 2000  # a folder with more entries holds images and is not searched: 100,000 names take seconds on a network
TABLES = ('.csv', '.json', '.xml', '.txt')  # ends of the names of files whose contents are labels
JUNK = ('__MACOSX', '.ipynb_checkpoints')  # and whatever starts with a dot: .DS_Store, ._image1.png

# Control characters, ends of lines, and bytes of no encoding, as Python has them in names of files.
GARBLED = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


@dataclasses.dataclass(frozen=True)
class Archive:
  """What a public archive looks like.

  Attributes:
    name: of the builder.
    marker: glob, relative to the archive's root, that no other archive matches; or a tuple of such, of which any.
    files: globs of what at the root belongs to the archive; folders with all that is in them.
    layout: the expected tree, in words or lines.
    download: where to get it, and under which terms.
  """
  name: str
  marker: str | tuple
  files: tuple
  layout: str
  download: str

  def explain(self):
    return (f'Download {self.download} Unpack it below <archives>/{self.name} (python -m tfds_builders.unpack; or '
            f'anywhere up to {DEPTH} folders below <archives>), so that there lies: {self.layout}')


class ArchiveMissing(FileNotFoundError):
  """No archive of a dataset where it was looked for; `dataset` is its name."""

  def __init__(self, archive, looked):
    self.dataset = archive.name
    super().__init__(f'{archive.name}: no {" or ".join(list_markers(archive))} in {" or ".join(map(str, looked))} '
                     f'nor up to {DEPTH} folders below. {archive.explain()}')


def list_markers(archive):
  return (archive.marker,) if isinstance(archive.marker, str) else archive.marker


def find(archive, archives):
  """Root of an archive: the outermost folder with its marker, below `archives`/<name> first, then below `archives`.

  Raises:
    ArchiveMissing: the message names the folders looked in, the layout, the source and where to put it.
  """
  archives = pathlib.Path(archives).expanduser().absolute()
  looked = [archives / archive.name, archives]
  for start in looked:
    for folder in walk(start):
      if any(next(folder.glob(marker), None) for marker in list_markers(archive)):
        return folder
  raise ArchiveMissing(archive, looked)


def walk(start):
  """Yields `start` and the folders below it, nearest first, sorted; passes by junk and crowds."""
  queue = collections.deque([(pathlib.Path(start), 0)])
  while queue:
    folder, depth = queue.popleft()
    if not folder.is_dir():
      continue
    yield folder
    if depth == DEPTH:
      continue
    below = []
    with os.scandir(folder) as entries:
      for count, entry in enumerate(entries):
        if count > CROWD:
          below = []
          break
        if entry.is_dir() and not is_junk(entry.name):
          below.append((pathlib.Path(entry.path), depth + 1))
    queue.extend(sorted(below))


def is_junk(name):
  return name.startswith('.') or name in JUNK


def list_files(archive, root):
  """All files of an archive; links are followed, since images often lie on another disk.

  Returns:
    {path relative to root with forward slashes: size in bytes}, sorted by path, without junk. A link to nothing is
    listed, with size 0: whoever reads it will say so.

  Raises:
    OSError: a folder that cannot be listed.
    ValueError: a link to a folder above itself; a pipe or device, which could be read for ever.
  """
  listed = {}
  for pattern in archive.files:
    for top in root.glob(pattern):
      for path in list_below(top) if top.is_dir() else [top]:
        listed[path.relative_to(root).as_posix()] = measure(path)
  return dict(sorted(listed.items()))


def list_below(top):
  """Yields the paths of all files in a folder and the folders below it, without junk."""
  for folder, folders, names in os.walk(top, onerror=fail, followlinks=True):
    folders[:] = [name for name in folders if not is_junk(name)]
    here = pathlib.Path(folder).resolve()
    for link in [path for name in folders if (path := pathlib.Path(folder, name)).is_symlink()]:
      if here.is_relative_to(link.resolve()):
        raise ValueError(f'{link} is a link to a folder above itself: remove it')
    yield from (pathlib.Path(folder, name) for name in names if not is_junk(name))


def fail(error):
  raise error


def measure(path):
  """Size of a file in bytes, 0 where a link leads nowhere; raises ValueError for what is no file."""
  try:
    state = path.stat()
  except OSError:
    return 0
  if not stat.S_ISREG(state.st_mode):
    raise ValueError(f'{path} is a pipe or device, not a file: remove it')
  return state.st_size


def fingerprint(root, listed):
  """Tells one archive from another wherever it lies.

  Covers the names and sizes of all files and the contents of the tables; the pixels are not read (45 GB in NIH's).

  Returns:
    {'sha256': str, 'files': int}
  """
  sha = hashlib.sha256()
  for path, size in listed.items():
    sha.update(f'{path}\0{size}\n'.encode('utf-8', 'surrogateescape'))  # as the bytes of the name are
    if path.endswith(TABLES):
      sha.update((root / path).read_bytes())
  return {'sha256': sha.hexdigest(), 'files': len(listed)}


def escape(text):
  """A text in one line of characters that can be stored."""
  return GARBLED.sub(lambda one: one[0].encode('unicode_escape').decode(), text)


def read_table(path, columns):
  """Rows of a CSV file.

  Args:
    columns: names that the header must have.

  Returns:
    [{column: cell}, ...], [reason, ...] of the rows left out since they have another number of cells than the header:
    in such a row nobody knows which cell is which.

  Raises:
    ValueError: not such a table; a column in `columns` that is not there, or twice.
  """
  numbered = list(number_rows(path))
  _, header = numbered[0] if numbered else (0, [])
  absent = [name for name in columns if header.count(name) != 1]
  if absent:
    raise ValueError(f'{path} does not have once each of {absent}, but {header}: is it the table as downloaded?'[:1000])
  rows, ragged = [], []
  for line, row in numbered[1:]:
    if len(row) == len(header):
      rows.append(dict(zip(header, row, strict=True)))
    else:
      ragged.append(f'row unlike its header: line {line} has {len(row)} cells, not {len(header)}')
  return rows, ragged


def read_rows(path):
  """Rows of a CSV file without (or with a useless) header, as lists of str; raises ValueError."""
  return [row for _, row in number_rows(path)]


def number_rows(path):
  """Yields (number of the line, cells) of the rows of a CSV file that are not empty. Where its first line has no comma,
  cells may be parted by semicolons or tabs, as spreadsheets save them in half of Europe."""
  text = read_text(path)
  head = text.lstrip('\r\n').splitlines()[:1]
  delimiter = next((mark for mark in ',;\t' if head and mark in head[0]), ',')
  table = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
  try:
    yield from ((table.line_num, row) for row in table if row)
  except csv.Error as error:
    raise ValueError(f'{path} line {table.line_num} is no row of a table: {error}') from error


def read_text(path):
  """A text file in UTF-8, with or without a mark at its start; line ends as they are. Raises ValueError, OSError."""
  measure(path)  # a pipe or device could be read for ever
  try:
    return path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is no text in UTF-8: {error.reason} at byte {error.start}') from error
