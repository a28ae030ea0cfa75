"""Downloads as they lie on disk: find an archive, list its files, tell two apart."""
import collections
import csv
import dataclasses
import hashlib
import os
import pathlib

DEPTH = 3  # folders below --archives that are searched
CROWD = 2000  # a folder with more entries holds images and is not searched: 100,000 names take seconds on a network
TABLES = ('.csv', '.json', '.xml', '.txt')  # ends of the names of files whose contents are labels
JUNK = ('__MACOSX', '.ipynb_checkpoints')  # and whatever starts with a dot: .DS_Store, ._image1.png


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
  """All files of an archive.

  Returns:
    {path relative to root with forward slashes: size in bytes}, sorted by path, without junk.
  """
  listed = {}
  for pattern in archive.files:
    for top in root.glob(pattern):
      if top.is_file():
        listed[top.name] = top.stat().st_size
      for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not is_junk(name)]
        for name in names:
          if not is_junk(name):
            path = pathlib.Path(folder, name)
            listed[path.relative_to(root).as_posix()] = path.stat().st_size
  return dict(sorted(listed.items()))


def fingerprint(root, listed):
  """Tells one archive from another wherever it lies.

  Covers the names and sizes of all files and the contents of the tables; the pixels are not read (45 GB in NIH's).

  Returns:
    {'sha256': str, 'files': int}
  """
  sha = hashlib.sha256()
  for path, size in listed.items():
    sha.update(f'{path}\0{size}\n'.encode())
    if path.endswith(TABLES):
      sha.update((root / path).read_bytes())
  return {'sha256': sha.hexdigest(), 'files': len(listed)}


def read_table(path, columns):
  """Rows of a CSV file as dicts; raises ValueError where a needed column is not there."""
  with open(path, newline='', encoding='utf-8-sig') as file:
    table = csv.DictReader(file)
    absent = [name for name in columns if name not in (table.fieldnames or ())]
    if absent:
      raise ValueError(f'{path} has columns {table.fieldnames}, not {absent}: is it the table as downloaded?')
    return list(table)


def read_rows(path):
  """Rows of a CSV file without (or with a useless) header, as lists of str."""
  with open(path, newline='', encoding='utf-8-sig') as file:
    return [row for row in csv.reader(file) if row]
