"""Anybody's radiographs in one plain layout, under a name of their own; README.md beside this shows it."""
import collections
import dataclasses
import functools
import json
import math
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, images

TABLE = 'labels.csv'
NAME = re.compile(r'[a-z][a-z0-9_]*')
TEXTS = ('study', 'part', 'view')
COLUMNS = ('image', 'patient', *TEXTS, 'sex', 'age', 'split')  # 'value (unit)' too; any other column is a finding
VALUE = re.compile(r'value(?: \((?P<unit>.+)\))?')
MARKS = {'1': True, '1.0': True, '0': False, '0.0': False, '': None, 'nan': None, '-1': None, '-1.0': None}
OLDEST, LARGEST = 120, 10**9  # years; of a value, whose square must fit float32
SHOWN = 80  # characters of what is wrong in a message
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M', '': ''}
OFFICIAL = {'train': 'train', 'training': 'train', 'val': 'validation', 'valid': 'validation',
            'validation': 'validation', 'test': 'test', '': ''}


class Mistake(ValueError):
  """Something in the table or beside it that its owner can mend."""


class UnknownDataset(archives.ArchiveMissing):
  """A name that neither a builder nor an own archive has."""

  def __init__(self, name, root):
    self.dataset = name
    FileNotFoundError.__init__(
      self, f'unknown dataset {name!r}: no builder has this name, and there is no {root / TABLE} of an archive of your '
      f'own (a name has small letters, digits and _; see tfds_builders/own_archive/README.md)')


def make_archive(name):
  """What `archives` needs to know of an own archive."""
  return archives.Archive(
    name=name, marker=TABLE, files=(TABLE, 'classes.txt', 'boxes.json', 'images', 'masks'),
    layout=f'{name}/{TABLE}, {name}/images/*, see tfds_builders/own_archive/README.md.',
    download='nothing: an own archive is put there by hand.')


def find(name, folder):
  """Root of an own archive, <folder>/<name>; raises UnknownDataset if there is none."""
  root = pathlib.Path(folder).expanduser().absolute() / name
  if not is_there(name, folder):
    raise UnknownDataset(name, root)
  return root


def is_there(name, folder):
  """Names are small letters, digits and _: they become folders, and parts of the names of files."""
  return bool(NAME.fullmatch(name)) and pathlib.Path(folder, name, TABLE).expanduser().is_file()


def make_builder(name, root):
  """A builder class named `name` whose findings are the columns of the table in `root`."""
  findings, value, classes, box_classes = read_schema(root)
  archive = make_archive(name)

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builder of somebody's own archive; see README.md beside it."""

    VERSION = dataset.VERSION
    BUILDER_CONFIGS = dataset.CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = archive.explain()

    def _info(self):
      return dataset.describe(self, homepage='', findings=findings, value=value, mask=classes, box_classes=box_classes)

    def _split_generators(self, dl_manager):
      reader = functools.partial(read, classes=classes, box_classes=box_classes)
      return dataset.generate(self, archive, dl_manager.manual_dir, reader)

    def _generate_examples(self, split, root, entries):
      yield from dataset.records(self, split, root, entries)

  Builder.name = name
  return Builder


def read_schema(root):
  """Names of the findings, {'name', 'unit'} of the value or None, names of the classes of masks, box_classes of boxes."""
  columns = [column.strip() for column in (archives.read_rows(root / TABLE) or [[]])[0]]
  twice = [column for column, count in collections.Counter(columns).items() if count > 1 or not column]
  if twice:
    raise Mistake(f'{root / TABLE} has a column without a name or one name twice: {twice}')
  odd = [column for column in columns if archives.GARBLED.search(column)]
  if odd:
    raise Mistake(f'{root / TABLE} has a column whose name cannot be printed: {archives.escape(odd[0])[:100]!r}')
  for needed, why in (('image', 'the file below images/'),
                      ('patient', 'whoever is in two rows must not be in two splits; for one image each repeat image')):
    if needed not in columns:
      raise Mistake(f'{root / TABLE} has no column {needed!r} ({why}); it has {", ".join(columns)}')
  values = [match for column in columns if (match := VALUE.fullmatch(column))]
  if len(values) > 1:
    raise Mistake(f'{root / TABLE} has {len(values)} columns of values; there can be one')
  findings = tuple(column for column in columns if column not in COLUMNS and not VALUE.fullmatch(column))
  return findings, {'name': 'value', 'unit': values[0]['unit'] or ''} if values else None, *read_names(root)


def read_names(root):
  """Names of the classes of masks, box_classes of boxes; empty where there are none."""
  classes = box_classes = ()
  if (root / 'masks').is_dir():
    classes = ('background', 'foreground')
    if (root / 'classes.txt').exists():
      lines = archives.read_text(root / 'classes.txt').splitlines()
      classes = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(classes) < dataset.UNANNOTATED:
      raise Mistake(f'{root / "classes.txt"} names {len(classes)} classes, background first; have 2 to 254')
  if (root / 'boxes.json').exists():
    try:
      categories = json.loads(archives.read_text(root / 'boxes.json'))['categories']
      box_classes = tuple(dict.fromkeys(kind['name'] for kind in categories))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise Mistake(f'{root / "boxes.json"} is no COCO file: {type(error).__name__} {error}') from error
  return classes, box_classes


def read(root, listed, classes, box_classes):
  """Entries, rejects and what was left out: the table states all but masks and boxes."""
  pictures = {path.removeprefix('images/'): path for path in listed if path.startswith('images/')}
  masks = {stem(path.removeprefix('masks/')): path for path in listed if path.startswith('masks/')}
  drawn, refused = boxes.read_coco(root / 'boxes.json', box_classes) if box_classes else ({}, [])
  rejects = [dataset.Reject(stem(name), 'boxes.json', reason) for name, reason in refused]
  entries, tabled = [], set()
  rows, ragged = archives.read_table(root / TABLE, ())
  if ragged:
    raise Mistake(f'{root / TABLE}: {ragged[0]}')
  for line, row in enumerate(rows, 2):
    row = {column.strip(): cell.strip() for column, cell in row.items()}
    name = row['image'].replace('\\', '/').removeprefix('images/')
    tabled.add(name)
    if name not in pictures:
      rejects.append(dataset.Reject(stem(name), name or TABLE, 'row without image'))
    elif not row['patient']:
      rejects.append(dataset.Reject(stem(name), pictures[name], 'row without patient'))
    else:
      entry = read_row(row, name, root / pictures[name], f'{root / TABLE} line {line}')
      if stem(name) in masks:
        entry = dataclasses.replace(
          entry, mask=functools.partial(read_mask, root / masks[stem(name)], len(classes)))
      entries.append(dataclasses.replace(entry, objects=tuple(drawn.get(name, ()))))
  rejects += [dataset.Reject(stem(name), path, 'image without row') for name, path in pictures.items()
              if name not in tabled]
  seen = {stem(name) for name in tabled}
  rejects += [dataset.Reject(name, path, 'mask without image') for name, path in masks.items() if name not in seen]
  rejects += [dataset.Reject(stem(name), 'boxes.json', 'boxes without image') for name in drawn if name not in tabled]
  return entries, rejects, {}


def read_row(row, name, path, where):
  """One line of the table as an entry, without mask and boxes; raises Mistake, which names the line."""
  findings = {column: look_up(MARKS, cell, f'{where}: {column}', '1, 0, or nothing where it is not known')
              for column, cell in row.items() if column not in COLUMNS and not VALUE.fullmatch(column)}
  fields = {column: row[column] for column in TEXTS if row.get(column)}
  fields['sex'] = look_up(SEXES, row.get('sex', ''), f'{where}: sex', 'F, M or nothing')
  age = row.get('age')
  fields['age'] = read_number(age, f'{where}: age', 0, OLDEST) if age else dataset.UNKNOWN_AGE
  if findings:
    fields['present'] = [float(bool(mark)) for mark in findings.values()]
    fields['label_mask'] = [mark is not None for mark in findings.values()]
  for column in filter(VALUE.fullmatch, row):
    fields['value'] = [read_number(row[column], f'{where}: {column}', -LARGEST, LARGEST)]
  label = ' '.join(finding for finding, mark in findings.items() if mark)
  return dataset.Entry(
    image_id=stem(name), patient=row['patient'], path=path, stratum=label, group=label, fields=fields,
    official=look_up(OFFICIAL, row.get('split', ''), f'{where}: split', 'train, validation, test or nothing'))


def look_up(table, cell, where, choices):
  if cell.lower() not in table:
    raise Mistake(f'{where} is {show(cell)}: write {choices}')
  return table[cell.lower()]


def read_number(cell, where, least, most):
  try:
    number = float(cell)
  except ValueError:
    number = math.nan
  if not least <= number <= most:
    raise Mistake(f'{where} is {show(cell)}: write a number from {least} to {most}')
  return number


def show(cell):
  return repr(cell) if len(cell) <= SHOWN else f'{cell[:SHOWN]!r}... of {len(cell)} characters'


def read_mask(path, classes):
  """HW uint8 of class numbers. Of two classes, all but black is the second, unless there is a 1."""
  mask = images.read(path)
  if classes == 2 and not (mask == 1).any():
    return (mask > 0).astype(np.uint8)
  strange = set(np.unique(mask).tolist()) - {*range(classes), dataset.UNANNOTATED}
  if strange:
    raise images.Unreadable(f'mask with unknown class: {sorted(strange)[:5]}, classes are 0 to {classes - 1}')
  return mask


def stem(path):
  """A path without its ending."""
  return path.rsplit('.', 1)[0]
