"""Phantoms of 256 px, as one prepared dataset and as files, for the benchmarks that read."""

import pathlib

NAME = 'nih_chest_xray'


def prepare(folder, images):
  """Renders and builds; writes the images of the training split, the same bytes, as PNG files."""
  from tfds_builders import build, phantoms
  folder = pathlib.Path(folder)
  phantoms.write(NAME, folder / 'archives', images, size=256)
  build.prepare(NAME, folder / 'archives', folder / 'prepared', size='256')
  source = open_prepared(folder)
  for index in range(len(source)):
    (folder / f'{index}.png').write_bytes(source.records[index]['image'])


def open_prepared(folder):
  """The training split, images alone."""
  from mtpret_jax.data.sources import open_source
  return open_source(NAME, pathlib.Path(folder, 'prepared'), '256', 'train', images_only=True)


def list_files(folder):
  return sorted(pathlib.Path(folder).glob('*.png'))
