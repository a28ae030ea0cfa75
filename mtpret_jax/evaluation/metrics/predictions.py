"""Predictions and truth as CSV, from which anyone can compute the scores again. Numbers keep all their digits."""

import csv
import math
import os

import numpy as np

from mtpret_jax.evaluation.metrics.scoring import ABOUT_IMAGES, About, Metrics, Rows, check_rows


def write_predictions(path: str | os.PathLike, metrics: Metrics, about: About, rows: Rows) -> None:
  """Writes one line per image; for detection one line per box, with `box` 'predicted' or 'true', or '' for an image
  without boxes. Unknown values are empty. `rows` has the format that `score` takes."""
  check_rows(metrics, rows)
  images = zip(*(rows[name].tolist() for name in ABOUT_IMAGES), strict=True)
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow([*ABOUT_IMAGES, *metrics.name_columns(about)])
    for image, lines in zip(images, metrics.write_lines(about, rows), strict=True):
      cells = ['' if isinstance(value, float) and math.isnan(value) else value for value in image]
      writer.writerows([*cells, *line] for line in lines)


def read_predictions(path: str | os.PathLike, metrics: Metrics, about: About) -> dict[str, np.ndarray]:
  """The rows that `write_predictions` wrote, numbers as float64.

  Raises:
    ValueError: the columns are not those of this kind of task on this dataset.
  """
  columns = [*ABOUT_IMAGES, *metrics.name_columns(about)]
  with open(path, newline='', encoding='utf-8') as file:
    header, *body = csv.reader(file)
  if header != columns:
    raise ValueError(f'{path} has the columns {header}, but {metrics.task} has {columns}: it was written for another '
                     f'task or dataset')
  images: dict[str, list] = {}
  for line in body:
    images.setdefault(line[0], []).append(line)
  rows = {name: np.array([image[0][at] for image in images.values()], str) for at, name in enumerate(ABOUT_IMAGES)}
  rows['age'] = np.array([float(age or 'nan') for age in rows['age']])
  cells = [[line[len(ABOUT_IMAGES):] for line in image] for image in images.values()]
  return rows | metrics.read_lines(about, cells)
