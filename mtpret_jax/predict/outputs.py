"""What a prediction becomes on disk: rows of a table, masks as PNG, boxes as COCO JSON.

An image is stretched to a square before the network sees it (`data/records.py`), so places are stretched back: masks
and boxes are in the image's own pixels, upright as its EXIF orientation says.

Letters: H W rows and columns of the image itself, S side of a predicted mask, M boxes, T findings.
"""

import csv
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from mtpret_jax.runtime.atomic_io import write_atomically

About = Mapping[str, Any]  # what a task says of its dataset: findings, relation, value, mask, box_classes
Prediction = Mapping[str, np.ndarray]  # one image's arrays, as `TaskModel.predict` returns them
Thresholds = Mapping[str, float]  # operating points, {finding or class of boxes: score}; {} where there are none


# Places in the image's own pixels


def restore_mask(mask_SS: np.ndarray, height: int, width: int) -> np.ndarray:
  """A predicted mask at the image's own size: (H, W) uint8, the class of each pixel. Nearest neighbour at the centres
  of pixels, so no class is invented and nothing is shifted."""
  return cv2.resize(mask_SS.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def restore_boxes(boxes_M4: np.ndarray, height: int, width: int) -> np.ndarray:
  """Boxes as (y0, x0, y1, x1) in 0-1 -> (M, 4) float64 as COCO has them: x, y, width, height in the image's own pixels,
  inside the image."""
  y0, x0, y1, x1 = np.clip(np.asarray(boxes_M4, np.float64).reshape(-1, 4), 0, 1).T
  return np.stack([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height], axis=1)


# Operating points


def find_positive(names: Sequence[str], thresholds: Thresholds, score: ArrayLike) -> np.ndarray:
  """Whether each score is at or above the operating point of its class; never for a class without one. `names` are the
  classes along the last axis of `score`. In float64, as validation chose the points."""
  return np.asarray(score, np.float64) >= np.array([thresholds.get(name, np.inf) for name in names])


# Rows of the table


class Layout(NamedTuple):
  """How one form of prediction becomes cells of the table.

  Attributes:
    name_columns: (about, thresholds, prediction) -> titles.
    write_cells: (about, thresholds, prediction) -> the cells below them.
  """

  name_columns: Callable[[About, Thresholds, Prediction], list[str]]
  write_cells: Callable[[About, Thresholds, Prediction], list]


def name_findings(about: About, thresholds: Thresholds, prediction: Prediction) -> list[str]:
  return [*(f'probability: {name}' for name in about['findings']),
          *(f'positive: {name}' for name in about['findings'] if name in thresholds),
          *(['predicted'] if about['relation'] != 'independent' else [])]


def write_findings(about: About, thresholds: Thresholds, prediction: Prediction) -> list:
  """The probabilities; 1 at or above the operating point, else 0; and if one finding is present, the likeliest."""
  names, score_T = about['findings'], prediction['score']
  return [*score_T.tolist(),  # with all digits, as evaluation writes them
          *(int(is_positive) for name, is_positive in zip(names, find_positive(names, thresholds, score_T), strict=True)
            if name in thresholds),
          *([names[int(score_T.argmax())]] if about['relation'] != 'independent' else [])]


def name_value(about: About, thresholds: Thresholds, prediction: Prediction) -> list[str]:
  value = about['value']
  return [f'{value["name"]} ({value["unit"]})' if value['unit'] else value['name']]


def write_value(about: About, thresholds: Thresholds, prediction: Prediction) -> list:
  return [float(prediction['value'][0])]


def name_shares(about: About, thresholds: Thresholds, prediction: Prediction) -> list[str]:
  return [f'area: {name}' for name in about['mask'][1:]]


def write_shares(about: About, thresholds: Thresholds, prediction: Prediction) -> list:
  """The share of the image, in 0-1, that each class but the background covers."""
  counts = np.bincount(prediction['mask'].ravel(), minlength=len(about['mask']))
  return [float(count / counts.sum()) for count in counts[1:]]


def name_boxes(about: About, thresholds: Thresholds, prediction: Prediction) -> list[str]:
  return ['boxes', *(f'highest score: {name}' for name in about['box_classes']),
          *(f'positive: {name}' for name in about['box_classes'] if name in thresholds)]


def write_boxes(about: About, thresholds: Thresholds, prediction: Prediction) -> list:
  """The number of boxes; the highest score of each class, empty without a box; and as in `write_findings`."""
  names, found = about['box_classes'], prediction['class_id'] >= 0
  best = [max(prediction['score'][prediction['class_id'] == class_id], default=-np.inf)
          for class_id, _ in enumerate(names)]
  return [int(found.sum()), *(float(score) if np.isfinite(score) else '' for score in best),
          *(int(is_positive) for name, is_positive in zip(names, find_positive(names, thresholds, best), strict=True)
            if name in thresholds)]


def name_numbers(about: About, thresholds: Thresholds, prediction: Prediction) -> list[str]:
  return [field if values.size == 1 else f'{field} {place}' for field, values in prediction.items()
          for place in range(values.size)]


def write_numbers(about: About, thresholds: Thresholds, prediction: Prediction) -> list:
  return [float(value) for values in prediction.values() for value in values.ravel()]


# By a field that only this form of prediction has. A kind of task with none of them writes all its numbers.
LAYOUTS = {'boxes': Layout(name_boxes, write_boxes), 'mask': Layout(name_shares, write_shares),
           'value': Layout(name_value, write_value), 'score': Layout(name_findings, write_findings)}
NUMBERS = Layout(name_numbers, write_numbers)


def find_layout(prediction: Prediction) -> Layout:
  return next((layout for field, layout in LAYOUTS.items() if field in prediction), NUMBERS)


# Files


def write_mask(path: pathlib.Path, mask_SS: np.ndarray, height: int, width: int) -> None:
  """A mask at the image's own size as an 8-bit grey PNG of class numbers, which looks black in a viewer."""
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, cv2.imencode('.png', restore_mask(mask_SS, height, width))[1].tobytes())


class Table:
  """A CSV file that is written row by row, and gets its name when it is whole. Its columns are known with the first
  prediction; the rows of unreadable images that come before wait for it."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.file: IO[str] = open(part_of(path), 'w', newline='', encoding='utf-8', errors='surrogateescape')
    self.writer = csv.writer(self.file)
    self.columns: list[str] = []
    self.waiting: list[dict[str, Any]] = []

  def add(self, cells: Mapping[str, Any]) -> None:
    """`cells` are {column: value}; a row with an error may lack columns."""
    if not self.columns:
      self.waiting.append(dict(cells))
      if not cells.get('error'):
        self.start()
      return
    self.writer.writerow([cells.get(column, '') for column in self.columns])

  def start(self) -> None:
    """Writes the header, whose columns are those of the last row, and the rows that waited."""
    self.columns = list(self.waiting[-1]) if self.waiting else ['image', 'error']
    self.writer.writerow(self.columns)
    self.writer.writerows([row.get(column, '') for column in self.columns] for row in self.waiting)
    self.waiting = []

  def close(self) -> None:
    if not self.columns:
      self.start()
    finish(self.file, self.path)


class CocoFile:
  """A COCO file of predicted boxes, written box by box so that memory stays flat. pycocotools loads it as a data set;
  its annotations have a `score`, so they are also what `COCO.loadRes` takes."""

  def __init__(self, path: pathlib.Path, classes: Sequence[str]) -> None:
    self.path, self.classes = path, classes
    self.images: list[dict[str, Any]] = []
    self.boxes = 0
    self.file: IO[str] = open(part_of(path), 'w', encoding='utf-8')
    self.file.write('{"annotations": [')

  def add(self, name: str, height: int, width: int, prediction: Prediction, thresholds: Thresholds) -> None:
    """Adds an image and its boxes. Where there is an operating point for the class, `positive` says whether the score
    is at or above it."""
    image_id = len(self.images) + 1
    self.images.append({'id': image_id, 'file_name': name, 'width': width, 'height': height})
    for box, class_id, score in zip(restore_boxes(prediction['boxes'], height, width), prediction['class_id'],
                                    prediction['score'], strict=True):
      if class_id >= 0:
        self.boxes += 1
        title = self.classes[class_id]
        positive = {'positive': bool(find_positive([title], thresholds, score)[0])} if title in thresholds else {}
        annotation = {'id': self.boxes, 'image_id': image_id, 'category_id': int(class_id) + 1, 'bbox': box.tolist(),
                      'area': float(box[2] * box[3]), 'iscrowd': 0, 'score': float(score), **positive}
        self.file.write((',\n' if self.boxes > 1 else '\n') + json.dumps(annotation, allow_nan=False))

  def close(self) -> None:
    rest = {'images': self.images,
            'categories': [{'id': class_id + 1, 'name': name} for class_id, name in enumerate(self.classes)]}
    self.file.write('],\n' + json.dumps(rest)[1:] + '\n')
    finish(self.file, self.path)


class Features:
  """A .npy file of features, written row by row: (images, D) float32. Its header, which numpy pads so that it keeps its
  length, gets the number of rows at the end."""

  def __init__(self, path: pathlib.Path) -> None:
    self.path = path
    self.file: IO[bytes] = open(part_of(path), 'wb')
    self.rows = self.width = 0

  def add(self, features_D: np.ndarray) -> int:
    """Appends a row and returns its number, from 0."""
    if not self.rows:
      self.width = features_D.size
      self.write_header()
    self.file.write(np.ascontiguousarray(features_D, '<f4').tobytes())
    self.rows += 1
    return self.rows - 1

  def write_header(self) -> None:
    self.file.seek(0)
    np.lib.format.write_array_header_1_0(
      self.file, {'descr': '<f4', 'fortran_order': False, 'shape': (self.rows, self.width)})

  def close(self) -> None:
    self.write_header()
    finish(self.file, self.path)


def part_of(path: pathlib.Path) -> pathlib.Path:
  """Where a file is until it is whole."""
  return path.with_name(f'{path.name}.part')


def finish(file: IO, path: pathlib.Path) -> None:
  """Closes a file that was written to `part_of(path)`, and gives it its name."""
  file.close()
  part_of(path).replace(path)
