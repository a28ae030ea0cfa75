"""Writes the folder of a prediction: the table, the files of each image, and `predict.json`, which names the runs."""

import collections
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

from mtpret_jax.predict import overlays
from mtpret_jax.predict.outputs import CocoFile, Features, Prediction, Table, Thresholds, find_layout, write_mask
from mtpret_jax.predict.reading import Reading, Unreadable
from mtpret_jax.runtime.atomic_io import TEMPORARY, write_json
from mtpret_jax.tasks.task import About, TaskKind

MARK = 'predict.json'  # says what made the folder, and that it is ours to overwrite
TABLE, BOXES, MASKS, OVERLAYS = 'predictions.csv', 'boxes.json', 'masks', 'overlays'
FEATURES, IDS = 'features.npy', 'features.csv'
FILES = (TABLE, BOXES, FEATURES, IDS)
WRITERS = 4  # threads that resize and compress masks while the device works
MAX_WAITING = 16  # masks that wait to be written; limits memory


class FolderTaken(ValueError):
  """The folder for the results holds something that must not be overwritten."""


def check_folder(out: pathlib.Path, overwrite: bool) -> None:
  """Checks that the folder is new, empty, or holds an earlier prediction that may be replaced: one that was interrupted
  always may.

  Raises:
    FolderTaken: it holds a finished prediction and `overwrite` is false, or other files.
  """
  if out.exists() and not out.is_dir():
    raise FolderTaken(f'--out={out} is a file: name a folder')
  held = sorted(path.name for path in out.iterdir()) if out.exists() else []
  if held and MARK not in held:
    raise FolderTaken(f'{out} holds other files, such as {held[0]}: name a new or an empty folder with --out')
  if held and not overwrite and is_finished(out):
    raise FolderTaken(f'{out} holds an earlier prediction: add --overwrite, or name another folder with --out')


def clear_folder(out: pathlib.Path) -> None:
  """Makes the folder, or empties it of an earlier prediction."""
  for folder in (MASKS, OVERLAYS):
    shutil.rmtree(out / folder, ignore_errors=True)
  for name in FILES:
    for path in (out / name, out / f'{name}.part'):
      path.unlink(missing_ok=True)
  for path in out.glob(TEMPORARY):
    path.unlink(missing_ok=True)
  out.mkdir(parents=True, exist_ok=True)


def is_finished(out: pathlib.Path) -> bool:
  try:
    return bool(json.loads((out / MARK).read_text(encoding='utf-8'))['finished'])
  except (ValueError, KeyError, TypeError):
    return False


class Predictions:
  """Writes what a model predicts, image by image, in the order of the images.

  Attributes:
    files: what was written, for the last lines of the command.
  """

  def __init__(self, out: pathlib.Path, kind: TaskKind, about: About, thresholds: Thresholds,
               draws_overlays: bool) -> None:
    self.out, self.kind, self.about, self.thresholds = out, kind, about, thresholds
    self.draws_overlays = draws_overlays
    self.table = Table(out / TABLE)
    self.boxes: CocoFile | None = None
    self.files = [self.table.path]
    self.pool = futures.ThreadPoolExecutor(WRITERS)
    self.waiting: collections.deque[futures.Future[None]] = collections.deque()

  def add(self, name: str, stem: str, reading: Reading, prediction: Prediction) -> None:
    """`stem` is the image's name for what is written beside the table."""
    layout, about, size = find_layout(prediction), self.about, (reading.height, reading.width)
    cells: dict[str, Any] = {'image': name, 'width': reading.width, 'height': reading.height}
    cells |= zip(layout.name_columns(about, self.thresholds, prediction),
                 layout.write_cells(about, self.thresholds, prediction), strict=True)
    if 'mask' in prediction:
      cells['mask'] = self.write_beside(MASKS, stem, lambda path: self.submit(
        write_mask, path, prediction['mask'], *size))
    if 'boxes' in prediction:
      self.add_boxes(name, size, prediction)
    if self.draws_overlays:
      cells['overlay'] = self.write_beside(OVERLAYS, stem, lambda path: overlays.write_overlay(
        path, self.kind, about, reading.image, size, prediction, pathlib.Path(name).name, self.thresholds))
    self.table.add(cells | {'warning': reading.warning, 'error': ''})

  def add_boxes(self, name: str, size: tuple[int, int], prediction: Prediction) -> None:
    if self.boxes is None:
      self.boxes = CocoFile(self.out / BOXES, self.about['box_classes'])
      self.files.append(self.boxes.path)
    self.boxes.add(name, *size, prediction, self.thresholds)

  def write_beside(self, folder: str, stem: str, write: Callable[[pathlib.Path], None]) -> str:
    """Writes a PNG about an image. Returns its path below the folder of the table."""
    if self.out / folder not in self.files:
      self.files.append(self.out / folder)
    name = f'{folder}/{stem}.png'
    write(self.out / name)
    return name

  def submit(self, function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function in a thread. Waits where too many wait already; raises what an earlier one raised."""
    self.waiting.append(self.pool.submit(function, *arguments))
    if len(self.waiting) > MAX_WAITING:
      self.waiting.popleft().result()

  def add_unreadable(self, name: str, error: Unreadable) -> None:
    self.table.add({'image': name, 'error': str(error)})

  def close(self) -> None:
    while self.waiting:
      self.waiting.popleft().result()
    self.pool.shutdown()
    if self.boxes is not None:
      self.boxes.close()
    self.table.close()


class Embeddings:
  """Writes the features of images: a row of features.npy for each readable image, and features.csv, which says what row
  it is. Attributes and methods are those of `Predictions`."""

  def __init__(self, out: pathlib.Path) -> None:
    self.features, self.table = Features(out / FEATURES), Table(out / IDS)
    self.files = [self.features.path, self.table.path]

  def add(self, name: str, stem: str, reading: Reading, features_D: Any) -> None:
    self.table.add({'row': self.features.add(features_D), 'image': name, 'width': reading.width,
                    'height': reading.height, 'warning': reading.warning, 'error': ''})

  def add_unreadable(self, name: str, error: Unreadable) -> None:
    self.table.add({'image': name, 'error': str(error)})

  def close(self) -> None:
    self.features.close()
    self.table.close()


def write_mark(out: pathlib.Path, made_by: Mapping[str, Any], finished: bool) -> None:
  """`predict.json`: the model and the counts, and whether the folder is complete."""
  write_json(out / MARK, {'finished': finished, **made_by})
