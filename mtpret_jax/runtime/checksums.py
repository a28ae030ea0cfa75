"""Checksums of a committed checkpoint: the SHA-256 of each of its files, in the manifest `<folder>.sha256`.

Orbax loads wrong weights from a file with a flipped bit, without an error. The manifest has the format of `sha256sum`,
so that you can verify a checkpoint without this package:

    cd checkpoints/400 && sha256sum -c ../400.sha256

The last line is a comment with the SHA-256 of the lines above it. It tells a damaged manifest from a damaged file.

    python -m mtpret_jax.runtime.checksums checkpoints/400     writes the manifest of a folder that you know to be good
"""

import hashlib
import os
import pathlib
import sys
from concurrent import futures

from mtpret_jax.runtime.atomic_io import fsync_folder, write_atomically

THREADS = min(8, os.cpu_count() or 1)  # hashing releases the interpreter lock
SEAL = '# sha256 of the lines above: '


def manifest_path(folder: pathlib.Path) -> pathlib.Path:
  """Where the manifest of a folder is."""
  return folder.with_name(f'{folder.name}.sha256')


def write_manifest(folder: str | pathlib.Path) -> None:
  """Flushes everything in `folder` to the disk, then writes its manifest."""
  folder = pathlib.Path(folder)
  for inner in [folder, *(path for path in folder.rglob('*') if path.is_dir())]:
    fsync_folder(inner)
  lines = ''.join(f'{digest}  {name}\n' for name, digest in hash_files(folder, fsync=True).items())
  write_atomically(manifest_path(folder), f'{lines}{SEAL}{hash_text(lines)}\n')


def find_damage(folder: str | pathlib.Path) -> str:
  """How `folder` differs from its manifest, in words; '' if it does not."""
  folder = pathlib.Path(folder)
  manifest = manifest_path(folder)
  if manifest.exists() and not manifest.is_file():  # reading a pipe or device could block forever
    return f'its manifest {manifest.name} is not a file'
  try:
    text = manifest.read_text(encoding='utf-8')
  except FileNotFoundError:
    return f'it has no manifest {manifest.name}'
  except (OSError, UnicodeDecodeError):
    return f'its manifest {manifest.name} cannot be read'
  lines, _, seal = text.rpartition(SEAL)
  if not lines or seal != f'{hash_text(lines)}\n':
    return f'its manifest {manifest.name} is itself corrupted or truncated'
  saved = {name: digest for digest, name in (line.split('  ', 1) for line in lines.splitlines())}
  found = hash_files(folder)
  differences = [describe_difference(name, saved.get(name), found.get(name)) for name in sorted(saved | found)]
  differences = [words for words in differences if words]
  more = f'; and {len(differences) - 3} more' if len(differences) > 3 else ''
  return '; '.join(differences[:3]) + more


def describe_difference(name: str, saved: str | None, found: str | None) -> str:
  """What happened to a file, given its saved and its present digest (None: no such file); '' if they are equal."""
  if found == saved:
    return ''
  if found is None:
    return f'{name} is missing'
  return f'{name} was added after the save' if saved is None else f'{name} is corrupted or truncated'


def hash_files(folder: pathlib.Path, fsync: bool = False) -> dict[str, str]:
  """{path relative to the folder: SHA-256, or 'unreadable'}. With `fsync` each file is flushed to the disk first, and
  an unreadable one raises OSError."""
  paths = sorted(path for path in folder.rglob('*') if path.is_file() or path.is_symlink())
  with futures.ThreadPoolExecutor(THREADS) as pool:
    digests = pool.map(lambda path: hash_file(path, fsync), paths)
    return {path.relative_to(folder).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}


def hash_file(path: pathlib.Path, fsync: bool) -> str:
  try:
    if path.exists() and not path.is_file():
      raise OSError(f'{path} is a link to something that is not a file')
    with open(path, 'rb') as file:
      if fsync:
        os.fsync(file.fileno())
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError:
    if fsync:
      raise
    return 'unreadable'


def hash_text(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


if __name__ == '__main__':
  for name in sys.argv[1:]:
    write_manifest(pathlib.Path(name).absolute())
