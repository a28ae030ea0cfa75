"""Downloaded archives on disk: finds them, lists their files, reads their tables and fingerprints them."""
import codecs
import collections
import csv
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

MAX_DEPTH = 3  # folder levels below --archives that are searched
MAX_FOLDER = 2000  # larger folders hold images and are not searched: listing 100,000 names takes seconds on a network
TABLES = ('.csv', '.json', '.xml', '.txt')  # suffixes of files that hold labels

# Files and folders that Finder, Explorer, KDE, office programs, NAS systems and WSL write beside people's files. A name
# with a leading dot is junk too: .DS_Store, ._image1.png, .directory, .~lock.labels.csv#. Case does not count.
JUNK = ('__macosx', 'icon\r', 'thumbs.db', 'ehthumbs.db', 'ehthumbs_vista.db', 'desktop.ini', '$recycle.bin',
        'recycler', 'system volume information', 'picasa.ini', '@eadir', '#recycle', '@recycle', '@recently-snapshot',
        'lost+found', 'network trash folder', 'temporary items')
JUNK_FORMS = re.compile(r'\.|~\$|.*(~|\.tmp|:?zone\.identifier|:encryptable)$', re.IGNORECASE)

# What pandas, R and spreadsheets write for an empty cell, in lower case.
MISSING = ('', 'nan', '-nan', 'na', '<na>', 'n/a', '#n/a', '#na', '#n/a n/a', 'none', 'null', 'nat', '-1.#ind',
           '1.#ind', '-1.#qnan', '1.#qnan')
FLAGS = {'1': True, '1.0': True, 'true': True, '0': False, '0.0': False, 'false': False}
DELIMITERS = (',', ';', '\t', '|')
DIRECTIVE = re.compile('"?sep=(.)"?', re.IGNORECASE)  # a first line by which Excel states the delimiter
INVISIBLE = '\ufeff\u200b\u200e\u200f'  # byte order mark, zero-width space and directions: left by copy and paste
ENCODINGS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF32_LE, 'utf-32'), (codecs.BOM_UTF32_BE, 'utf-32'),
             (codecs.BOM_UTF16_LE, 'utf-16'), (codecs.BOM_UTF16_BE, 'utf-16'))  # UTF-32's mark begins as UTF-16's does
NO_TEXT = ((b'PK\3\4', 'an Excel workbook or ZIP file'), (b'\xd0\xcf\x11\xe0', 'an old Excel workbook'),
           (b'\x1f\x8b', 'a gzip file'), (b'%PDF', 'a PDF file'))

# Control characters, line ends, and the surrogates by which Python represents undecodable bytes in file names.
GARBLED = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


@dataclasses.dataclass(frozen=True)
class Archive:
  """What a public archive looks like on disk.

  Attributes:
    name: of the builder.
    marker: glob, relative to the archive's root, that matches in no other archive. Of a tuple of globs, any may match.
    files: globs of the files and folders at the root that belong to the archive; folders count with their contents.
    layout: the expected tree, in words.
    download: where to get the archive, and its terms.
  """
  name: str
  marker: str | tuple[str, ...]
  files: tuple[str, ...]
  layout: str
  download: str

  def instructions(self) -> str:
    """How to get the archive and where to put it, in one line."""
    return (f'Download {self.download} Unpack it below <archives>/{self.name} with python -m tfds_builders.unpack '
            f'(anywhere up to {MAX_DEPTH} folders below <archives> works). Expected layout: {self.layout}')


class ArchiveMissing(FileNotFoundError):
  """A dataset's archive was not found; `dataset` is its name."""

  def __init__(self, archive: Archive, searched: Sequence[pathlib.Path]) -> None:
    self.dataset = archive.name
    super().__init__(f'{archive.name}: no {" or ".join(list_markers(archive))} in {" or ".join(map(str, searched))} '
                     f'or up to {MAX_DEPTH} folders below. {archive.instructions()}')


def list_markers(archive: Archive) -> tuple[str, ...]:
  return (archive.marker,) if isinstance(archive.marker, str) else archive.marker


def find_root(archive: Archive, archives_dir: str | os.PathLike[str]) -> pathlib.Path:
  """The root of an archive: the outermost folder that holds its marker.

  Searches `archives_dir`/<name> first, then all of `archives_dir`.

  Raises:
    ArchiveMissing: the message names the folders searched, the layout, the download and where to put it.
  """
  archives_dir = pathlib.Path(archives_dir).expanduser().absolute()
  searched = [archives_dir / archive.name, archives_dir]
  for top in searched:
    for folder in walk_folders(top):
      if any(next(folder.glob(marker), None) for marker in list_markers(archive)):
        return folder
  raise ArchiveMissing(archive, searched)


def walk_folders(top: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields `top` and the folders below it, breadth first and sorted, without junk and folders full of images."""
  queue = collections.deque([(pathlib.Path(top), 0)])
  while queue:
    folder, depth = queue.popleft()
    if not folder.is_dir():
      continue
    yield folder
    if depth == MAX_DEPTH:
      continue
    below: list[tuple[pathlib.Path, int]] = []
    with os.scandir(folder) as entries:
      for count, entry in enumerate(entries):
        if count > MAX_FOLDER:
          below = []
          break
        if entry.is_dir() and not is_junk(entry.name):
          below.append((pathlib.Path(entry.path), depth + 1))
    queue.extend(sorted(below))


def is_junk(name: str) -> bool:
  """Whether a desktop, office program or file system wrote this file or folder, not a person."""
  return name.lower() in JUNK or JUNK_FORMS.match(name) is not None


def normalise(text: str) -> str:
  """The text in Unicode's composed form (NFC). macOS decomposes the names of files: 'ö' is then two characters."""
  return unicodedata.normalize('NFC', text)


def is_missing(cell: str) -> bool:
  """Whether a cell is empty or what programs write for an empty one, such as 'nan' or '<NA>'."""
  return cell.strip().lower() in MISSING


def list_files(archive: Archive, root: pathlib.Path) -> dict[str, int]:
  """All files of an archive. Links are followed, since images often lie on another disk.

  Returns:
    {path relative to root, with forward slashes: size in bytes}, sorted by path, without junk. A dangling link is
    listed with size 0; reading it fails later and rejects the image.

  Raises:
    OSError: a folder cannot be listed.
    ValueError: a link to a parent folder, a pipe or a device; reading those might never end.
  """
  files = {}
  for pattern in archive.files:
    for top in root.glob(pattern):
      for path in list_below(top) if top.is_dir() else [top]:
        files[path.relative_to(root).as_posix()] = file_size(path)
  return dict(sorted(files.items()))


def list_below(top: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the paths of all files below a folder, without junk."""
  for folder, folders, names in os.walk(top, onerror=reraise, followlinks=True):
    folders[:] = [name for name in folders if not is_junk(name)]
    here = pathlib.Path(folder).resolve()
    for link in [path for name in folders if (path := pathlib.Path(folder, name)).is_symlink()]:
      if here.is_relative_to(link.resolve()):
        raise ValueError(f'{link} is a link to a folder above itself: remove it')
    yield from (pathlib.Path(folder, name) for name in names if not is_junk(name))


def reraise(error: OSError) -> NoReturn:
  raise error


def file_size(path: pathlib.Path) -> int:
  """Size of a file in bytes, 0 for a dangling link; raises ValueError for a pipe or device."""
  try:
    state = path.stat()
  except OSError:
    return 0
  if not stat.S_ISREG(state.st_mode):
    raise ValueError(f'{path} is a pipe or device, not a file: remove it')
  return state.st_size


def fingerprint(root: pathlib.Path, files: dict[str, int]) -> dict[str, Any]:
  """Identifies the contents of an archive, wherever it lies.

  Covers the names and sizes of all files and the contents of the tables. Pixels are not read: NIH has 45 GB of them.

  Returns:
    {'sha256': str, 'files': int}
  """
  sha = hashlib.sha256()
  for path, size in files.items():
    sha.update(f'{path}\0{size}\n'.encode('utf-8', 'surrogateescape'))  # gives back the bytes of the name on disk
    if path.endswith(TABLES):
      sha.update((root / path).read_bytes())
  return {'sha256': sha.hexdigest(), 'files': len(files)}


def escape(text: str) -> str:
  """The text on one line, with control characters and undecodable bytes escaped."""
  return GARBLED.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


def read_flag(cell: str) -> bool | None:
  """A cell that is 1 or 0, as whole number, float or truth value; None for anything else."""
  return FLAGS.get(cell.strip().lower())


@dataclasses.dataclass(frozen=True)
class Table:
  """A CSV file with a header.

  Attributes:
    path: of the file.
    header: names of the columns, without blanks around them and in Unicode's composed form.
    rows: [(number of its first line, counted from 1 as editors do, {column: cell}), ...] without empty rows.
    ragged: [reason, ...] of the rows that were left out. A row with another number of cells than the header is left
      out, since its cells cannot be matched to columns; empty cells at its end do not count.
    delimiter: one of DELIMITERS.
  """
  path: pathlib.Path
  header: tuple[str, ...]
  rows: list[tuple[int, dict[str, str]]]
  ragged: list[str]
  delimiter: str


def read_table(path: pathlib.Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
  """Reads a CSV file with a header.

  Args:
    path: of the file.
    columns: names that the header must have.

  Returns:
    [{column: cell}, ...] and [reason, ...] of the rows that were left out, see `Table`.

  Raises:
    ValueError: not a CSV file, or a required column is missing or repeated.
  """
  table = load_table(path, columns)
  absent = [name for name in columns if table.header.count(name) != 1]
  if absent:
    raise ValueError(f'{path} must have each of these columns once: {absent}. Its header is {list(table.header)}. '
                     'Is it the table as downloaded?'[:1000])
  return [row for _, row in table.rows], table.ragged


def load_table(path: pathlib.Path, columns: Sequence[str] = ()) -> Table:
  """Reads a CSV file whose header may be anything; `columns` are expected there and decide between delimiters.

  Raises:
    ValueError: not a CSV file.
  """
  text = read_text(path)
  delimiter = find_delimiter(text, columns)
  numbered = list(number_rows(path, text, delimiter))
  header = [clean_name(cell) for cell in numbered[0][1]] if numbered else []
  while header and not header[-1] and not any(cell.strip() for _, row in numbered for cell in row[len(header) - 1:]):
    header.pop()  # spreadsheets write empty columns at the end
  rows, ragged = [], []
  for line, row in numbered[1:]:
    if not any(cell.strip() for cell in row[len(header):]):
      row = row[:len(header)]
    if len(row) == len(header):
      rows.append((line, dict(zip(header, row, strict=True))))
    else:
      ragged.append(f'row unlike its header: line {line} has {len(row)} cells, not {len(header)}')
  return Table(path, tuple(header), rows, ragged, delimiter)


def clean_name(cell: str) -> str:
  """A column name without blanks and invisible characters around it, in Unicode's composed form."""
  return normalise(cell.strip().strip(INVISIBLE).strip())


def read_rows(path: pathlib.Path) -> list[list[str]]:
  """All rows of a CSV file but the empty ones, also a header, as lists of cells; raises ValueError."""
  text = read_text(path)
  return [row for _, row in number_rows(path, text, find_delimiter(text, ()))]


def find_delimiter(text: str, columns: Sequence[str]) -> str:
  """The character that separates the cells of a CSV file.

  European spreadsheets write semicolons, copying from a spreadsheet gives tabs. Of several that are in the first line,
  the one that separates most of the expected `columns` counts, then the first of DELIMITERS.
  """
  first = next((line for line in text.splitlines() if line.strip()), '')
  directive = DIRECTIVE.fullmatch(first.strip(' '))
  if directive and directive[1] in DELIMITERS:
    return directive[1]
  wanted = {name.lower() for name in columns}

  def count(delimiter: str) -> int:
    return len(wanted & {clean_name(cell).lower() for cell in first.replace('"', '').split(delimiter)})
  return max([mark for mark in DELIMITERS if mark in first] or DELIMITERS, key=count)


def number_rows(path: pathlib.Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (number of its first line, cells) of the rows of a CSV text but the empty ones. Lines count from 1."""
  table = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
  before = 0
  try:
    for row in table:
      line, before = before + 1, table.line_num
      stated = line == 1 and DIRECTIVE.fullmatch(delimiter.join(row).strip(' '))
      if any(cell.strip() for cell in row) and not stated:
        yield line, row
  except csv.Error as error:
    raise ValueError(f'{path} line {table.line_num} is not a valid CSV row: {error}') from error


def read_text(path: pathlib.Path) -> str:
  """A text file in UTF-8, or in the encoding that its byte order mark states; line ends stay as they are.

  Other encodings cannot be told apart for certain.

  Raises:
    ValueError: another encoding or no text; the message says what to type.
    OSError: unreadable.
  """
  file_size(path)  # reading a pipe or device might never end
  raw = path.read_bytes()
  for start, kind in NO_TEXT:
    if raw.startswith(start):
      raise ValueError(f'{path} is not UTF-8 text but {kind}: open it and save it as {path.name} in UTF-8 (in Excel: '
                       'Save As, "CSV UTF-8")')
  encoding = next((encoding for mark, encoding in ENCODINGS if raw.startswith(mark)), 'utf-8')
  remedy = ('Save it as UTF-8 (in Excel: Save As, "CSV UTF-8"), or type iconv -f ENCODING -t UTF-8 '
            f'{path.name} > new{path.suffix}, with WINDOWS-1252 as ENCODING for western Windows')
  if encoding == 'utf-8' and max(raw[:1000][half::2].count(0) for half in (0, 1)) > len(raw[:1000]) / 4:
    raise ValueError(f'{path} is not UTF-8 text but UTF-16 without a byte order mark. {remedy}')
  try:
    return raw.decode(encoding)
  except UnicodeDecodeError as error:
    line = raw[:error.start].count(b'\n') + 1
    raise ValueError(f'{path} is not {encoding.removesuffix("-sig").upper()} text: {error.reason} at byte '
                     f'{error.start}, line {line}. {remedy}') from error
