"""Phantom radiographs of 256 px, as one prepared dataset and as PNG files, for the benchmarks that read images."""

import pathlib

from mtpret_jax.data.sources import Source, open_source

NAME = 'nih_chest_xray'


def prepare(folder: str | pathlib.Path, images: int) -> None:
  """Renders and prepares phantoms, and writes the images of the training split to PNG files, byte for byte."""
  from tfds_builders import build, phantoms
  folder = pathlib.Path(folder)
  phantoms.write(NAME, folder / 'archives', images, size=256)
  build.prepare(NAME, folder / 'archives', folder / 'prepared', size='256')
  source = open_prepared(folder)
  for index in range(len(source)):
    (folder / f'{index}.png').write_bytes(source.records[index]['image'])


def open_prepared(folder: str | pathlib.Path) -> Source:
  """The images of the training split."""
  return open_source(NAME, pathlib.Path(folder, 'prepared'), '256', 'train', images_only=True)


def list_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
  return sorted(pathlib.Path(folder).glob('*.png'))
