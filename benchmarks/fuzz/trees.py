"""Damages to the folders of an archive: functions (rng, root, file) -> None. `file` is one of its files."""

import os
import pathlib
import shutil

import numpy as np

from benchmarks.fuzz import values


def remove(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  file.unlink()


def remove_folder(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  if file.parent != root:
    shutil.rmtree(file.parent)
  else:
    file.unlink()


def rename(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  name = values.pick(rng, (*values.NAMES, file.name.upper(), file.stem, f'{file.name}.png', f'copy of {file.name}'))
  os.rename(os.fsencode(file), os.path.join(os.fsencode(file.parent), os.fsencode(name)))


def copy(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  """A second copy under another name or in another folder."""
  if rng.random() < 0.5:
    shutil.copy(file, file.with_name(f'{file.stem} (1){file.suffix}'))
  else:
    folder = values.pick(rng, sorted(path for path in root.rglob('*') if path.is_dir()))
    if not (folder / file.name).exists():
      shutil.copy(file, folder)


def swap(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  """Exchanges two files."""
  other = values.pick(rng, sorted(path for path in root.rglob('*') if path.is_file()))
  one, two = file.read_bytes(), other.read_bytes()
  file.write_bytes(two)
  other.write_bytes(one)


def make_folder(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  """A folder in place of the file, empty or with a file in it."""
  file.unlink()
  file.mkdir()
  if rng.random() < 0.5:
    (file / 'x.png').write_bytes(b'?')


def make_file(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  """A file in place of the folder that holds it."""
  folder = file.parent if file.parent != root else file
  shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
  folder.write_bytes(b'?')


def link(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  """Replaces the file or folder by a link to nothing, itself, a folder above, a device, or its new place."""
  moved = root / 'moved'
  if file.parent != root and rng.random() < 0.4:
    file = file.parent
  file.rename(moved)
  places = ('nowhere', file.name, '..', '.', root, '/dev/zero', '/dev/null', moved, moved, moved)
  file.symlink_to(values.pick(rng, places))


def pipe(rng: np.random.Generator, root: pathlib.Path, file: pathlib.Path) -> None:
  file.unlink()
  os.mkfifo(file)


KINDS = {'file missing': remove, 'folder missing': remove_folder, 'file renamed': rename, 'file copied': copy,
         'files swapped': swap, 'folder for a file': make_folder, 'file for a folder': make_file, 'link': link,
         'pipe': pipe}
