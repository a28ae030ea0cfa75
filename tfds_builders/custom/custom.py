"""Builder for your own X-rays: any folder in the layout that README.md beside this file describes."""
import collections
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, images, records

TABLE = 'labels.csv'
NAME = re.compile(r'[a-z][a-z0-9_]*')
TEXTS = ('study', 'part', 'view')
COLUMNS = ('image', 'patient', *TEXTS, 'sex', 'age', 'split')  # also 'value (unit)'; any other column is a finding
VALUE = re.compile(r'value(?: \((?P<unit>.+)\))?')
LABELS = {'1': True, '1.0': True, '0': False, '0.0': False, '': None, 'nan': None, '-1': None, '-1.0': None}
MAX_VALUE = 10**9  # the square must fit into float32
SHOWN = 80  # characters of a wrong cell in a message
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M', '': ''}
OFFICIAL = {'train': 'train', 'training': 'train', 'val': 'validation', 'valid': 'validation',
            'validation': 'validation', 'test': 'test', '': ''}
README = 'tfds_builders/custom/README.md'


class InvalidDataset(ValueError):
  """A mistake in labels.csv, classes.txt or boxes.json that the user can correct; the message says where."""


class UnknownDataset(archives.ArchiveMissing):
  """A name that is neither a builder's nor that of a custom dataset."""

  def __init__(self, name: str, root: pathlib.Path) -> None:
    self.dataset = name
    FileNotFoundError.__init__(
      self, f'unknown dataset {name!r}: no builder has this name, and your own dataset would need {root / TABLE} '
      f'(names have small letters, digits and _; see {README})')


def make_archive(name: str) -> archives.Archive:
  """The layout of a custom dataset."""
  return archives.Archive(
    name=name, marker=TABLE, files=(TABLE, 'classes.txt', 'boxes.json', 'images', 'masks'),
    layout=f'{name}/{TABLE}, {name}/images/*, see {README}.',
    download='nothing: put your own images there.')


def find_root(name: str, archives_dir: str | os.PathLike[str]) -> pathlib.Path:
  """Root of a custom dataset, <archives_dir>/<name>; raises UnknownDataset if it does not exist."""
  root = pathlib.Path(archives_dir).expanduser().absolute() / name
  if not exists(name, archives_dir):
    raise UnknownDataset(name, root)
  return root


def exists(name: str, archives_dir: str | os.PathLike[str]) -> bool:
  """Whether there is a custom dataset of this name. Names become folder names, so few characters are allowed."""
  return bool(NAME.fullmatch(name)) and pathlib.Path(archives_dir, name, TABLE).expanduser().is_file()


def make_builder(name: str, root: pathlib.Path) -> type[tfds.core.GeneratorBasedBuilder]:
  """A TFDS builder class of this name, with a finding for each label column of the table in `root`."""
  findings, value, classes, box_classes = read_schema(root)
  negatives = list_negatives(root, box_classes)
  archive = make_archive(name)

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of a custom dataset; see README.md beside it."""

    VERSION = dataset.VERSION
    BUILDER_CONFIGS = dataset.CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = archive.instructions()

    def _info(self) -> tfds.core.DatasetInfo:
      return dataset.dataset_info(
        self, homepage='', findings=findings, value=value, mask=classes, box_classes=box_classes,
        negative_images=negatives)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
      reader = functools.partial(read_archive, classes=classes, box_classes=box_classes)
      return records.split_generators(self, archive, dl_manager.manual_dir, reader)

    def _generate_examples(
        self, split: str, root: pathlib.Path, entries: Sequence[dataset.Entry]) -> Iterator[tuple[str, dict]]:
      yield from records.generate_records(self, split, root, entries)

  Builder.name = name
  return Builder


def read_schema(
    root: pathlib.Path) -> tuple[tuple[str, ...], dict[str, str] | None, tuple[str, ...], tuple[str, ...]]:
  """What a custom dataset annotates.

  Returns:
    Names of the findings, {'name', 'unit'} of the value or None, names of the mask classes, names of the box classes.

  Raises:
    InvalidDataset: the message says what to correct.
  """
  columns = [column.strip() for column in (archives.read_rows(root / TABLE) or [[]])[0]]
  repeated = [column for column, count in collections.Counter(columns).items() if count > 1 or not column]
  if repeated:
    raise InvalidDataset(f'{root / TABLE}: every column needs a name of its own, see {repeated}')
  garbled = [column for column in columns if archives.GARBLED.search(column)]
  if garbled:
    raise InvalidDataset(
      f'{root / TABLE} has control characters in the column name {archives.escape(garbled[0])[:100]!r}: remove them')
  for needed, meaning in (
      ('image', 'the path below images/'),
      ('patient', 'all images of a patient must be in one split; with one image per patient, repeat the image')):
    if needed not in columns:
      raise InvalidDataset(f'{root / TABLE} has no column {needed!r} ({meaning}); it has {", ".join(columns)}')
  values = [match for column in columns if (match := VALUE.fullmatch(column))]
  if len(values) > 1:
    raise InvalidDataset(f'{root / TABLE} has {len(values)} value columns; at most one is allowed')
  findings = tuple(column for column in columns if column not in COLUMNS and not VALUE.fullmatch(column))
  return findings, {'name': 'value', 'unit': values[0]['unit'] or ''} if values else None, *read_class_names(root)


def read_class_names(root: pathlib.Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Names of the mask classes and of the box classes; empty without masks or boxes."""
  classes: tuple[str, ...] = ()
  box_classes: tuple[str, ...] = ()
  if (root / 'masks').is_dir():
    classes = ('background', 'foreground')
    if (root / 'classes.txt').exists():
      lines = archives.read_text(root / 'classes.txt').splitlines()
      classes = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(classes) < dataset.UNANNOTATED:
      raise InvalidDataset(f'{root / "classes.txt"} names {len(classes)} classes; name 2 to 254, background first')
  if (root / 'boxes.json').exists():
    try:
      categories = json.loads(archives.read_text(root / 'boxes.json'))['categories']
      box_classes = tuple(dict.fromkeys(category['name'] for category in categories))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise InvalidDataset(f'{root / "boxes.json"} is not a COCO file: {type(error).__name__} {error}') from error
  return classes, box_classes


def list_negatives(root: pathlib.Path, box_classes: Sequence[str]) -> list[str]:
  """Sorted ids of the images that boxes.json lists without a box. They were examined, so they are negatives of
  detection; an image that boxes.json does not list was not. An image with a rejected box is no negative."""
  if not box_classes:
    return []
  boxes_of, rejected = boxes.read_coco(root / 'boxes.json', box_classes)
  doubtful = {name for name, _ in rejected}
  return sorted(stem(name) for name, found in boxes_of.items() if not found and name not in doubtful)


def read_archive(
    root: pathlib.Path, files: Mapping[str, int], classes: Sequence[str],
    box_classes: Sequence[str]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out (nothing).

  Args:
    root: of the dataset.
    files: {relative path: bytes}.
    classes: names of the mask classes.
    box_classes: names of the box classes.

  Raises:
    InvalidDataset: the message says which line to correct.
  """
  pictures = {path.removeprefix('images/'): path for path in files if path.startswith('images/')}
  masks = {stem(path.removeprefix('masks/')): path for path in files if path.startswith('masks/')}
  boxes_of, bad_boxes = boxes.read_coco(root / 'boxes.json', box_classes) if box_classes else ({}, [])
  rejects = [dataset.Reject(stem(name), 'boxes.json', reason) for name, reason in bad_boxes]
  entries, in_table = [], set()
  rows, ragged = archives.read_numbered_table(root / TABLE, ())
  if ragged:
    raise InvalidDataset(f'{root / TABLE}: {ragged[0]}')
  for line, row in rows:
    row = {column.strip(): cell.strip() for column, cell in row.items()}
    name = row['image'].replace('\\', '/').removeprefix('images/')
    in_table.add(name)
    if name not in pictures:
      rejects.append(dataset.Reject(stem(name), name or TABLE, 'row without image'))
    elif not row['patient']:
      rejects.append(dataset.Reject(stem(name), pictures[name], 'row without patient'))
    else:
      entry = read_row(row, name, root / pictures[name], f'{root / TABLE} line {line}')
      if stem(name) in masks:
        entry = dataclasses.replace(
          entry, mask=functools.partial(read_mask, root / masks[stem(name)], len(classes)))
      entries.append(dataclasses.replace(entry, objects=tuple(boxes_of.get(name, ()))))
  rejects += [dataset.Reject(stem(name), path, 'image without row') for name, path in pictures.items()
              if name not in in_table]
  stems = {stem(name) for name in in_table}
  rejects += [dataset.Reject(name, path, 'mask without image') for name, path in masks.items() if name not in stems]
  rejects += [dataset.Reject(stem(name), 'boxes.json', 'boxes without image')
              for name in boxes_of if name not in in_table]
  return entries, rejects, {}


def read_row(row: Mapping[str, str], name: str, path: pathlib.Path, where: str) -> dataset.Entry:
  """One line of the table as an entry, without mask and boxes.

  Args:
    row: {column: cell}.
    name: of the image, below images/.
    path: of the image file.
    where: file and line, for messages.

  Raises:
    InvalidDataset: a cell is not allowed.
  """
  labels = {column: look_up(LABELS, cell, f'{where}: {column}', '1, 0, or nothing if unknown')
            for column, cell in row.items() if column not in COLUMNS and not VALUE.fullmatch(column)}
  fields: dict[str, Any] = {column: row[column] for column in TEXTS if row.get(column)}
  fields['sex'] = look_up(SEXES, row.get('sex', ''), f'{where}: sex', 'F, M or nothing')
  age = row.get('age')
  fields['age'] = read_number(age, f'{where}: age', 0, dataset.MAX_AGE) if age else dataset.UNKNOWN_AGE
  if labels:
    fields['present'] = [float(bool(label)) for label in labels.values()]
    fields['label_mask'] = [label is not None for label in labels.values()]
  for column in filter(VALUE.fullmatch, row):
    fields['value'] = [read_number(row[column], f'{where}: {column}', -MAX_VALUE, MAX_VALUE)]
  positive = ' '.join(finding for finding, label in labels.items() if label)
  return dataset.Entry(
    image_id=stem(name), patient=row['patient'], path=path, stratum=positive, paper_group=positive, fields=fields,
    official_split=look_up(OFFICIAL, row.get('split', ''), f'{where}: split', 'train, validation, test or nothing'))


def look_up(table: Mapping[str, Any], cell: str, where: str, choices: str) -> Any:
  if cell.lower() not in table:
    raise InvalidDataset(f'{where} is {quote(cell)}: write {choices}')
  return table[cell.lower()]


def read_number(cell: str, where: str, low: float, high: float) -> float:
  try:
    number = float(cell)
  except ValueError:
    number = math.nan
  if not low <= number <= high:
    raise InvalidDataset(f'{where} is {quote(cell)}: write a number from {low} to {high}')
  return number


def quote(cell: str) -> str:
  return repr(cell) if len(cell) <= SHOWN else f'{cell[:SHOWN]!r}... of {len(cell)} characters'


def read_mask(path: pathlib.Path, classes: int) -> np.ndarray:
  """HW uint8 of class indices.

  A mask of two classes may be black and white: unless it contains the value 1, every pixel above 0 is foreground.

  Raises:
    images.Unreadable: a value that is no class.
  """
  mask = images.read(path)
  if classes == 2 and not (mask == 1).any():
    return (mask > 0).astype(np.uint8)
  unknown = set(np.unique(mask).tolist()) - {*range(classes), dataset.UNANNOTATED}
  if unknown:
    raise images.Unreadable(f'mask with unknown class: {sorted(unknown)[:5]}, classes are 0 to {classes - 1}')
  return mask


def stem(path: str) -> str:
  """A path without its suffix."""
  return path.rsplit('.', 1)[0]
