"""What a folder held when it was whole: the SHA-256 of each of its files, in `<folder>.sha256` beside it.

Orbax gives back wrong weights for a flipped bit without an error. The form is that of `sha256sum`, so that

    cd checkpoints/400 && sha256sum -c ../400.sha256

checks a checkpoint without this package. Its last line is a comment with the SHA-256 of those above, which tells a
damaged manifest from a damaged file.

    python -m mtpret_jax.runtime.checksums checkpoints/400     writes the manifest of a folder that is known to be whole
"""

import hashlib
import os
import pathlib
import sys
from concurrent import futures

from mtpret_jax.runtime.atomic_io import fsync_folder, write_atomically

READERS = min(8, os.cpu_count() or 1)  # threads: hashing lets go of the interpreter lock
SEAL = '# sha256 of the lines above: '


def manifest_path(folder):
  """Where the manifest of a folder is."""
  return folder.with_name(f'{folder.name}.sha256')


def write_manifest(folder):
  """Writes the manifest of `folder` once all that is in it lies on the disk."""
  folder = pathlib.Path(folder)
  for inner in [folder, *(path for path in folder.rglob('*') if path.is_dir())]:
    fsync_folder(inner)
  lines = ''.join(f'{digest}  {name}\n' for name, digest in hash_files(folder, settle=True).items())
  write_atomically(manifest_path(folder), f'{lines}{SEAL}{hash_text(lines)}\n')


def find_damage(folder):
  """What of `folder` is not as its manifest says, in words; '' where all of it is."""
  folder = pathlib.Path(folder)
  if manifest_path(folder).exists() and not manifest_path(folder).is_file():  # a pipe or device could be read for ever
    return f'its manifest {manifest_path(folder).name} is no file'
  try:
    text = manifest_path(folder).read_text(encoding='utf-8')
  except FileNotFoundError:
    return f'it has no manifest {manifest_path(folder).name}'
  except (OSError, UnicodeDecodeError):
    return f'its manifest {manifest_path(folder).name} cannot be read'
  lines, _, seal = text.rpartition(SEAL)
  if not lines or seal != f'{hash_text(lines)}\n':
    return f'its manifest {manifest_path(folder).name} is itself flipped or truncated'
  saved = {name: digest for digest, name in (line.split('  ', 1) for line in lines.splitlines())}
  found = hash_files(folder)
  words = [word for name in sorted(saved | found) if (word := describe_difference(name, saved.get(name), found.get(name)))]
  return '; '.join(words[:3]) + (f'; and {len(words) - 3} more' if len(words) > 3 else '')


def describe_difference(name, saved, found):
  if found == saved:
    return ''
  if found is None:
    return f'{name} is missing'
  return f'{name} was not saved with it' if saved is None else f'{name} is flipped or truncated'


def hash_files(folder, settle=False):
  """{path in the folder: SHA-256, 'unreadable' where a file cannot be read}. With `settle` each is first written out to
  the disk, and one that cannot be read is an error."""
  paths = sorted(path for path in folder.rglob('*') if path.is_file() or path.is_symlink())
  with futures.ThreadPoolExecutor(READERS) as pool:
    digests = pool.map(lambda path: hash_file(path, settle), paths)
    return {path.relative_to(folder).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}


def hash_file(path, settle):
  try:
    if path.exists() and not path.is_file():
      raise OSError(f'{path} is a link to what is no file')
    with open(path, 'rb') as file:
      if settle:
        os.fsync(file.fileno())
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError:
    if settle:
      raise
    return 'unreadable'


def hash_text(text):
  return hashlib.sha256(text.encode()).hexdigest()


if __name__ == '__main__':
  for name in sys.argv[1:]:
    write_manifest(pathlib.Path(name).absolute())
