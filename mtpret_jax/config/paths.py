"""Checks the folders of a run: which ones Orbax and TensorStore can write checkpoints to and read them from, and
whether they can be written at all.

`python -m benchmarks.paths` tries each character with the versions that are installed.
"""

import os
import pathlib
import re
from collections.abc import Callable

from mtpret_jax.config.errors import ConfigError, show
from tfds_builders.common.paths import advise, check_writable, find_data_defect, locate, make_absolute

# What the absolute path of a folder of checkpoints must not have -> why.
UNREADABLE = {
  r'\\': 'TensorStore reads it as /',
  r'gs:(?=/|$)': 'Orbax reads a folder name that ends so as a bucket'}
# Orbax looks up its files by a pattern. With these it finds none, and the arrays are lost, or another folder's.
UNWRITABLE = UNREADABLE | dict.fromkeys((
  r'\*', r'\?', r'\[(?=!?+\]?+[^/\]]*\])'), 'Orbax reads it as a pattern')  # [ only where a ] closes it
# that a run writes in its workdir
FILES = ('run.lock', 'metrics.jsonl', 'validation.jsonl', 'probes.jsonl', 'bad_batches.jsonl')


def find_read_defect(folder: str) -> str:
  """Why Orbax cannot read checkpoints below a folder, as the end of a sentence that begins with the folder; '' if it
  can."""
  return find_data_defect(folder) or find_part(folder, UNREADABLE) or find_detour(folder)


def find_write_defect(folder: str) -> str:
  """As `find_read_defect`, for writing checkpoints."""
  return find_data_defect(folder) or find_part(folder, UNWRITABLE) or find_detour(folder)


def find_part(folder: str, patterns: dict[str, str]) -> str:
  place = str(make_absolute(folder))
  for pattern, why in patterns.items():
    if match := re.search(pattern, place):
      return f"{locate(folder, match[0])} '{match[0]}', and {why}: {advise(folder, match[0])}"
  return ''


def find_detour(folder: str) -> str:
  """TensorStore takes `link/..` for the folder that holds the link; all others, for the one above the link's target."""
  place = os.fspath(make_absolute(folder))
  real = os.path.realpath(place)
  if real == os.path.realpath(os.path.normpath(place)):
    return ''
  return f"has '..' after a symbolic link, which TensorStore follows to another folder: write it as {real}"


def check_path(field: str, folder: str, find_defect: Callable[[str], str]) -> None:
  """Raises ConfigError if the libraries cannot use the folder of a field. An empty field names none."""
  if folder and (defect := find_defect(folder)):
    raise ConfigError(f'{field}={show(folder)} {defect}, with --config.{field}=<folder>')


def check_workdir(workdir: str | pathlib.Path, checkpoints: bool = True) -> None:
  """Writes once to the folder, or where it will be created, so that an unwritable one is noticed before hours of
  work. Also raises ConfigError if one of the run's files exists but is not a regular file, such as a pipe, or if
  Orbax cannot write `checkpoints` below the folder."""
  check_path('workdir', str(workdir), find_write_defect if checkpoints else find_data_defect)
  try:
    check_writable(find_existing(workdir))
  except OSError as error:
    raise ConfigError(f'cannot write to workdir {str(workdir)!r} ({error.strerror}): choose another with '
                      f'--config.workdir=<folder>') from error
  for path in (pathlib.Path(workdir, name) for name in FILES):
    if (path.exists() or path.is_symlink()) and not path.is_file():
      raise ConfigError(f'{path} is not a file: remove it, or choose another folder with --config.workdir=<folder>')


def check_folder(field: str, folder: str) -> None:
  """Raises ConfigError if `folder` is not a folder and cannot become one, because a file is in the way, or if the
  libraries cannot use it."""
  check_path(field, folder, find_data_defect)
  try:
    place = find_existing(folder)
  except OSError as error:
    raise ConfigError(f'{field}={show(folder)} cannot be used ({error.strerror}): choose another with '
                      f'--config.{field}=<folder>') from error
  if not place.is_dir():
    raise ConfigError(f'{field}={show(folder)} cannot be created, because {place} is not a folder: choose another with '
                      f'--config.{field}=<folder>')


def find_existing(folder: str | pathlib.Path) -> pathlib.Path:
  """The folder, or the nearest one above it that exists; a file or a broken link if that is in the way. Raises OSError
  if a name is too long."""
  place = pathlib.Path(folder).absolute()
  while True:
    try:
      os.lstat(place)
      return place
    except (FileNotFoundError, NotADirectoryError):
      place = place.parent
