"""Which folders TFDS, etils and array_record can use: they take some characters for patterns or other file systems.

`python -m benchmarks.paths` tries each character. `mtpret_jax.config.paths` has what Orbax and TensorStore cannot use.
"""
import os
import pathlib
import tempfile
import unicodedata
from collections.abc import Callable

Folder = str | os.PathLike[str]

BUCKETS = ('gs', 's3', 'az', 'hf')  # etils reads /gs/... as gs://...
UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')  # Unicode categories: control characters, undecodable bytes, ends of lines
MAX_BYTES = 3880  # Linux takes 4095; what is written below a folder needs the rest


def find_archives_defect(folder: Folder) -> str:
  """Why archives cannot be read from a folder, as the end of a sentence that begins with the folder; '' if they can."""
  if '://' in os.fspath(folder):
    return 'is a URL, and only folders of this machine can be used: mount the bucket and give the folder'
  root = make_absolute(folder).parts[1:2]
  if root and root[0] in BUCKETS:
    return (f'is below /{root[0]}, which TFDS and Orbax read as {root[0]}://: use another folder, or give a symbolic '
            f'link to it')
  return ''


def find_data_defect(folder: Folder) -> str:
  """As `find_archives_defect`, for a folder where prepared datasets are written and read."""
  place = make_absolute(folder)
  size = len(os.fsencode(place))
  if defect := find_archives_defect(folder):
    return defect
  if '**' in str(place):
    return f"{locate(folder, '**')} '**', which TFDS and Orbax read as a pattern: {advise(folder, '**')}"
  for character in str(place):
    if unicodedata.category(character) == 'Cs':
      return f'has the byte {os.fsencode(character)!r}, which is not UTF-8: give a path without it'
  return f'has {size} bytes: use a path of at most {MAX_BYTES}' if size > MAX_BYTES else ''


def find_name_defect(path: str) -> str:
  """As `find_data_defect`, for what a path in a config must not have, whether it names a folder or a file."""
  if '://' in path:
    return find_archives_defect(path)
  for character in path:
    if unicodedata.category(character) in UNPRINTABLE:
      return f'has the character {character!a}, which cannot be printed: give a path without it'
  return ''


def check(flag: str, folder: Folder, find_defect: Callable[[Folder], str]) -> None:
  """Raises ValueError if the folder of a flag cannot be used."""
  if defect := find_defect(folder):
    raise ValueError(f'{flag}={os.fspath(folder)!r} {defect}')


def check_writable(folder: Folder) -> None:
  """Raises OSError if no file can be created in the folder. Creates one and removes it: permissions do not tell of a
  read-only mount or a full disk."""
  tempfile.NamedTemporaryFile(dir=folder, prefix='.writable-').close()


def make_absolute(folder: Folder) -> pathlib.Path:
  """The absolute path, with symbolic links and '..' as they are. Raises RuntimeError for ~ without a home folder."""
  return pathlib.Path(folder).expanduser().absolute()


def locate(folder: Folder, part: str) -> str:
  """Whether the part of the absolute path is in the folder as it is given, or in the current folder before it."""
  return 'has' if part in os.fspath(folder) else f'is in {os.getcwd()!r}, which has'


def advise(folder: Folder, part: str) -> str:
  return ('choose a folder without it' if part in os.fspath(folder) else
          'start the command in another folder, or give a full path without it')
