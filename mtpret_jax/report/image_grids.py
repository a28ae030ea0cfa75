"""Grids of images: views of training images, and nearest neighbours of validation images."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.evaluation import probe
from mtpret_jax.evaluation.probe_models import normalise_rows
from mtpret_jax.runtime.pictures import plain_text

MOST = 2  # findings of an image that its caption names

Cell = tuple[np.ndarray, str]  # image (H, W, 1) and its caption


def draw_views(workdir: pathlib.Path, datasets: probe.Datasets, config: ConfigDict, samples: int = 8) -> pathlib.Path:
  """`views.png`: training images from all datasets, and two augmented views of each, as the trunk gets them."""
  pools = [splits['train']['image'] for splits in datasets.values()]
  images = np.stack([pools[index % len(pools)][index // len(pools) % len(pools[index % len(pools)])]
                     for index in range(samples)])
  make_view = jax.jit(lambda images, rng: views.make_view(images, rng, config.augment, 'float32'))
  first, second = (np.asarray(make_view(images, rng)) for rng in jax.random.split(jax.random.key(config.seed)))
  return draw_grid(pathlib.Path(workdir, 'views.png'), [[(image, '') for image in row]
                                                        for row in (images, first, second)],
                   ['image', 'one view', 'another view'])


def draw_neighbours(workdir: pathlib.Path, datasets: probe.Datasets, features: probe.Features, queries: int = 8,
                    neighbours: int = 4) -> pathlib.Path:
  """`neighbours.png`: validation images in the top row; below each, the training images of all datasets whose features
  are nearest by cosine similarity. Captions have the dataset, the labels and the similarity."""
  bank = np.concatenate([normalise_rows(features[name]['train']) for name in datasets])
  places = [(name, row) for name in datasets for row in range(len(features[name]['train']))]
  names = list(datasets)
  columns: list[list[Cell]] = []
  for index in range(queries):
    name = names[index % len(names)]
    row = index // len(names) % len(features[name]['validation'])
    similarities = bank @ normalise_rows(features[name]['validation'])[row]
    nearest = np.argsort(-similarities)[:neighbours]
    columns.append([make_cell(name, datasets[name]['validation'], row), *(
      make_cell(places[at][0], datasets[places[at][0]]['train'], places[at][1], f'{similarities[at]:.2f}')
      for at in nearest)])
  return draw_grid(pathlib.Path(workdir, 'neighbours.png'), list(zip(*columns, strict=True)),
                   ['validation', *(f'nearest {rank + 1}' for rank in range(neighbours))])


def make_cell(dataset: str, split: probe.Split, row: int, similarity: str = '') -> Cell:
  return split['image'][row], '\n'.join(filter(None, (dataset, describe_labels(split, row), similarity)))


def describe_labels(split: Mapping[str, Any], row: int) -> str:
  """The findings that an image is known to have, or its value with the unit; '' where it has no label."""
  about = split['about']
  if 'present' in split:
    known = np.asarray(split['label_mask'][row], bool)
    present = np.flatnonzero(known & (np.asarray(split['present'][row]) > 0))
    if len(present):
      rest = f' +{len(present) - MOST}' if len(present) > MOST else ''
      return ', '.join(about['findings'][at] for at in present[:MOST]) + rest
    return describe_absent([about['findings'][at] for at in np.flatnonzero(known)])
  if 'value' in split and np.isfinite(split['value'][row]).all():
    return f'{float(np.ravel(split["value"][row])[0]):g} {about["value"]["unit"]}'.strip()
  return ''


def describe_absent(absent: Sequence[str]) -> str:
  """'covid absent', 'none of 14 findings'; '' without any. An image may well show what nobody looked for."""
  return f'{absent[0]} absent' if len(absent) == 1 else f'none of {len(absent)} findings' if absent else ''


@plain_text()
def draw_grid(path: pathlib.Path, rows: Sequence[Sequence[Cell]], titles: Sequence[str]) -> pathlib.Path:
  """Draws rows of images with captions, a title to the left of each row."""
  from matplotlib.figure import Figure  # imported here, because it would add half a second to every start
  lines = max(caption.count('\n') + bool(caption) for row in rows for _, caption in row)
  figure = Figure(figsize=(1.5 * len(rows[0]), (1.55 + 0.13 * lines) * len(rows)))
  axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
  for row, title, cells in zip(rows, titles, axes, strict=True):
    for (image, caption), cell in zip(row, cells, strict=True):
      cell.imshow(image[..., 0], cmap='gray')
      cell.set(xticks=[], yticks=[])
      cell.set_xlabel(caption, fontsize=6)
    cells[0].set_ylabel(title)
  figure.tight_layout(pad=0.3)
  figure.savefig(path, dpi=110)
  return path
