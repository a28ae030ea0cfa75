"""The folder of an export: all of its files appear together, or none."""

import contextlib
import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import operating_points
from mtpret_jax.export import stablehlo, torchvision
from mtpret_jax.runtime import model_file, weights_file

MARK = 'README.md'  # every export has one, and its first line of text says so
WORDS = 'Exported by mtpret_jax'
FILES = frozenset((
  MARK, torchvision.MODEL, torchvision.TRUNK_FILE, torchvision.SPEC, torchvision.SCRIPT.name, stablehlo.FILE,
  stablehlo.WEIGHTS, stablehlo.SPEC, weights_file.FILE, model_file.FILE, saved.FILE, operating_points.FILE))


@contextlib.contextmanager
def write_whole(path: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
  """Gives a new folder beside `path`, which takes the name `path` at the end, and is deleted after an error.

  Args:
    overwrite: whether an earlier export in `path` is replaced. Nothing else ever is.

  Raises:
    ConfigError: `path` exists and may not be replaced, or cannot be created.
  """
  check_free(path, overwrite)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except (FileExistsError, NotADirectoryError) as error:
    raise ConfigError(f'{path} cannot be created as a folder ({error.strerror}): choose another --out') from error
  work = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
  new, old = work / 'new', work / 'old'
  try:
    new.mkdir()  # mkdtemp's own folder is closed to other users
    yield new
    check_free(path, overwrite)  # the files of an export take time to write
    if path.exists():
      path.replace(old)
    try:
      new.replace(path)
    except BaseException:
      if old.exists():
        old.replace(path)
      raise
  finally:
    shutil.rmtree(work, ignore_errors=True)


def check_free(path: pathlib.Path, overwrite: bool) -> None:
  """Raises ConfigError if `path` may not be written."""
  if not path.exists() or path.is_dir() and not any(path.iterdir()):
    return
  if not is_export(path):
    raise ConfigError(f'{path} exists and is no export: choose another --out')
  if not overwrite:
    raise ConfigError(f'{path} exists: add --overwrite to replace this export, or choose another --out')
  if other := find_other(path):
    raise ConfigError(f'{other} is no file of an export, and --overwrite would delete it: move it, or choose another '
                      f'--out')


def is_export(path: pathlib.Path) -> bool:
  """Whether a folder is what an earlier command has exported, alone or with a folder for each task."""
  return path.is_dir() and (has_card(path) or any(map(has_card, path.iterdir())))


def has_card(folder: pathlib.Path) -> bool:
  card = folder / MARK
  return card.is_file() and WORDS in card.read_text(encoding='utf-8', errors='replace')


def find_other(folder: pathlib.Path) -> pathlib.Path | None:
  """The first thing in an export that no export writes, such as predictions; None if there is none."""
  is_single = has_card(folder)  # else it has a folder for each task, and nothing more
  for path in sorted(folder.iterdir()):
    if not is_single and has_card(path):
      if other := find_other(path):
        return other
    elif not is_single or path.name not in FILES or not path.is_file():
      return path
  return None


def list_files(folder: pathlib.Path) -> list[tuple[str, int, str]]:
  """(name, bytes, SHA-256) of each file in a folder, by name."""
  return [(path.name, path.stat().st_size, hash_file(path)) for path in sorted(folder.iterdir()) if path.is_file()]


def hash_file(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
