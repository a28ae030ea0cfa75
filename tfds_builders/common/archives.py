"""Downloaded archives on disk: finds them, lists their files and fingerprints them."""
import collections
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import sys
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


def check_file_names(archive: Archive, root: pathlib.Path) -> None:
  """Raises ValueError if the locale cannot express file names of the archive, which would then match no table."""
  encoding = sys.getfilesystemencoding()
  if encoding == 'utf-8':
    return
  for file in list_files(archive, root):
    if not file.isascii():
      raise ValueError(f'the locale has the encoding {encoding}, which cannot express the file name '
                       f'{file!a:.200} in {root}: set PYTHONUTF8=1')


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
