"""Folder names: which of them can Orbax, TensorStore, TFDS, etils and array_record use?

    python -m benchmarks.paths

Tries a folder with each printable ASCII character, and the names of NAMES. A checkpoint is saved and restored below it,
one is read below it, and a small dataset of one's own is prepared and read, once with the archive below it and once
with the prepared data. Each result must agree with what `tfds_builders.common.paths` and `mtpret_jax.config.paths`
allow. A pattern that finds no other folder's files works here, and is refused all the same: `*` and `?` are expected
to disagree. A name takes about two seconds.
"""

import argparse
import logging
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import PIL.Image

from mtpret_jax.config import paths as checkpoint_paths
from mtpret_jax.data.sources import SPLITS, open_source
from mtpret_jax.runtime import checkpoint
from tfds_builders import build
from tfds_builders.common import paths

NAMES = ('[1]', '[!a]', '**', 'gs:', 'logs:', 's3:', 'http:', 'Röntgen', 'Ro\u0308ntgen', '中文', '😀', 'a ', 'a.',
         ' a', '.a', '-a', '~', '$HOME', '%41', 'a@8', 'a-00000-of-00001', '[0:3]', 'a\u00a0b', 'x' * 255)
CHARACTERS = tuple(f'a{chr(code)}b' for code in range(32, 127) if chr(code) != '/')
SAFE_PATTERNS = ('a*b', 'a?b')
IMAGES = 6


def make_state(step: int) -> dict:
  return {'step': jnp.int32(step), 'weights': jnp.arange(5000.0) * step}


def read_checkpoint(folder: pathlib.Path) -> None:
  state, _ = checkpoint.read_state(folder)
  np.testing.assert_array_equal(state['weights'], make_state(3)['weights'])


def save_checkpoint(folder: pathlib.Path) -> None:
  with checkpoint.open_checkpoints(folder, 1) as checkpoints:
    checkpoint.save(checkpoints, make_state(3), 3, {'seed': 0})


def write_archive(folder: pathlib.Path) -> None:
  """A dataset of one's own named `clinic`."""
  (folder / 'clinic/images').mkdir(parents=True)
  rng = np.random.default_rng(0)
  for index in range(IMAGES):
    PIL.Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(folder / f'clinic/images/{index}.png')
  (folder / 'clinic/labels.csv').write_text('image,patient,fracture\n' + ''.join(
    f'{index}.png,{index},{index % 2}\n' for index in range(IMAGES)))


def prepare_and_read(archives: pathlib.Path, data_dir: pathlib.Path) -> None:
  build.prepare('clinic', archives, data_dir)
  sources = [open_source('clinic', data_dir, '256', split) for split in SPLITS]
  found = sum(bool(source.records[index]['image']) for source in sources for index in range(len(source)))
  assert found == IMAGES, f'{found} of {IMAGES} images'


def list_trials(folder: pathlib.Path, root: pathlib.Path) -> dict[str, tuple[Callable[[], None], str]]:
  """{what is tried: (the trial, why it should fail, or '')}; `root` has a checkpoint and an archive."""
  def save_and_read() -> None:
    save_checkpoint(folder / 'run')
    read_checkpoint(folder / 'run')

  def copy_and_read() -> None:
    shutil.copytree(root / 'run', folder / 'copied')
    read_checkpoint(folder / 'copied')

  def build_archive() -> None:
    write_archive(folder / 'archives')
    prepare_and_read(folder / 'archives', folder.parent / 'prepared')

  text = str(folder / 'run')
  return {'save a checkpoint': (save_and_read, checkpoint_paths.find_write_defect(text)),
          'read a checkpoint': (copy_and_read, checkpoint_paths.find_read_defect(text)),
          'read an archive': (build_archive, paths.find_archives_defect(text)),
          'prepare a dataset': (lambda: prepare_and_read(root / 'archives', folder / 'prepared'),
                                paths.find_data_defect(text))}


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.paths', description=(__doc__ or '').split('\n')[0])
  parser.add_argument('names', nargs='*', help='names of folders to try instead')
  names = parser.parse_args(arguments).names
  logging.disable()
  wrong = 0
  with tempfile.TemporaryDirectory() as place:
    root = pathlib.Path(place)
    save_checkpoint(root / 'run')
    write_archive(root / 'archives')
    for number, name in enumerate(names or CHARACTERS + NAMES):
      for what, (trial, defect) in list_trials(root / str(number) / name, root).items():
        try:
          trial()
          failure = ''
        except Exception as error:  # the libraries raise anything
          failure = ' '.join(str(error).split())[:100]
        if failure or defect:
          expected = f'refused: it {defect}' if defect else 'allowed'
          print(f'{name!r}: {what}: {failure or "works"}; {expected}', flush=True)
        wrong += bool(failure) != bool(defect) and name not in SAFE_PATTERNS
  print(f'{wrong} results differ from what is allowed')
  return int(wrong > 0)


if __name__ == '__main__':
  sys.exit(main())
