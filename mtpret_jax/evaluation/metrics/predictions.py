"""Predictions and truth as CSV, from which anybody can compute the scores again. Numbers keep all their digits."""

import csv
import math

import numpy as np

from mtpret_jax.evaluation.metrics import box_lines, number_lines
from mtpret_jax.evaluation.metrics.scoring import ABOUT_IMAGES, check

LINES = {'classification': number_lines, 'detection': box_lines, 'regression': number_lines,
         'segmentation': number_lines}


def write_predictions(path, task, about, rows):
  """One line per image; of detection one per box, `box` being 'predicted' or 'true', or '' for an image without any.
  What is not known is empty. `rows`: as `score` takes them."""
  check(task, rows)
  lines = LINES[task]
  images = zip(*(rows[name].tolist() for name in ABOUT_IMAGES), strict=True)
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow([*ABOUT_IMAGES, *lines.name_columns(task, about)])
    for image, cells in zip(images, lines.write(task, about, rows), strict=True):
      image = ['' if isinstance(value, float) and math.isnan(value) else value for value in image]
      writer.writerows([*image, *line] for line in cells)


def read_predictions(path, task, about):
  """The rows that `write_predictions` wrote, numbers as float64.

  Raises:
    ValueError: if the columns are not those of the task on a dataset that says `about` itself.
  """
  lines = LINES[task]
  columns = [*ABOUT_IMAGES, *lines.name_columns(task, about)]
  with open(path, newline='', encoding='utf-8') as file:
    header, *body = csv.reader(file)
  if header != columns:
    raise ValueError(f'{path} has the columns {header}, but {task} has {columns}: written for another task or dataset')
  images = {}
  for line in body:
    images.setdefault(line[0], []).append(line)
  rows = {name: np.array([image[0][at] for image in images.values()], str) for at, name in enumerate(ABOUT_IMAGES)}
  rows['age'] = np.array([float(age or 'nan') for age in rows['age']])
  cells = [[line[len(ABOUT_IMAGES):] for line in image] for image in images.values()]
  return rows | lines.read(task, about, cells)
