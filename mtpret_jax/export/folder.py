"""The folder of an export: all of its files appear together, or none."""

import contextlib
import hashlib
import pathlib
import shutil
from collections.abc import Iterator

from mtpret_jax.config.errors import ConfigError

MARK = 'README.md'  # every export has one, and its first line of text says so
WORDS = 'Exported by mtpret_jax'


@contextlib.contextmanager
def write_whole(path: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
  """Gives a new folder beside `path`, which takes the name `path` at the end, and is deleted after an error.

  Args:
    overwrite: whether an earlier export in `path` is replaced. Nothing else ever is.

  Raises:
    ConfigError: `path` exists and may not be replaced, or cannot be created.
  """
  check_free(path, overwrite)
  part = path.with_name(f'{path.name}.part')
  shutil.rmtree(part, ignore_errors=True)  # of a command that was interrupted
  try:
    part.mkdir(parents=True)
  except (FileExistsError, NotADirectoryError) as error:
    raise ConfigError(f'{part} cannot be created as a folder ({error.strerror}): choose another --out') from error
  try:
    yield part
    old = path.with_name(f'{path.name}.old')
    if path.exists():
      path.replace(old)
    part.replace(path)
    shutil.rmtree(old, ignore_errors=True)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def check_free(path: pathlib.Path, overwrite: bool) -> None:
  """Raises ConfigError if `path` may not be written."""
  if not path.exists() or path.is_dir() and not any(path.iterdir()):
    return
  if not is_export(path):
    raise ConfigError(f'{path} exists and is no export: choose another --out')
  if not overwrite:
    raise ConfigError(f'{path} exists: add --overwrite to replace this export, or choose another --out')


def is_export(path: pathlib.Path) -> bool:
  """Whether a folder is what an earlier command has exported, alone or with a folder for each task."""
  if not path.is_dir():
    return False
  cards = [path / MARK] if (path / MARK).is_file() else [below / MARK for below in path.iterdir()]
  return bool(cards) and all(card.is_file() and WORDS in card.read_text(encoding='utf-8', errors='replace')
                             for card in cards)


def list_files(folder: pathlib.Path) -> list[tuple[str, int, str]]:
  """(name, bytes, SHA-256) of each file in a folder, by name."""
  return [(path.name, path.stat().st_size, hash_file(path)) for path in sorted(folder.iterdir()) if path.is_file()]


def hash_file(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
