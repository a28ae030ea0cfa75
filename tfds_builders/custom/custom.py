"""Builder for your own X-rays: any folder in the layout that docs/own-data.md describes."""
import collections
import dataclasses
import functools
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.common import archives, dataset, label_columns, masks, plain_text, records, tables
from tfds_builders.custom.box_file import Boxes, check_boxes, load_boxes, read_boxes
from tfds_builders.custom.classes import COLUMN, read_classes, warn_of_typos
from tfds_builders.custom.file_names import clean_path, fold, match_masks, match_names, name_images, stem
from tfds_builders.custom.labels import (
  COLUMNS,
  TABLE,
  VALUE,
  InvalidDataset,
  load_labels,
  marks_uncertain,
  merge_patients,
  quote,
  read_row,
)

NAME = re.compile(r'[a-z][a-z0-9_]*')
README = 'docs/own-data.md'
MANY = 20  # images
TABLES = ('.csv', '.tsv', '.xls', '.xlsx', '.xlsm', '.ods', '.json', '.xml', '.parquet')  # suffixes in a warning

log = logging.getLogger(__name__)


class UnknownDataset(archives.ArchiveMissing):
  """A name that is neither a builder's nor that of a custom dataset."""

  def __init__(self, name: str, root: pathlib.Path) -> None:
    self.dataset = name
    others = [path.name for path in list_others(root) if path.is_file()]
    there = f'. Save {" or ".join(others[:3])}, which is there, as {TABLE} (CSV UTF-8)' if others else ''
    FileNotFoundError.__init__(
      self, f'unknown dataset {name!r}: no builder has this name, and your own dataset would need {root / TABLE} '
      f'(names have small letters, digits and _; see {README}){plain_text.escape(there)}')


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


def list_names(archives_dir: str | os.PathLike[str]) -> list[str]:
  """The custom datasets in a folder of archives, sorted."""
  folder = pathlib.Path(archives_dir).expanduser()
  return sorted(path.name for path in folder.iterdir() if exists(path.name, folder)) if folder.is_dir() else []


def describe(root: pathlib.Path) -> dict[str, Any]:
  """What a custom dataset annotates, with the keys of its metadata after the build; raises InvalidDataset."""
  findings, value, classes, box_classes = read_schema(root)
  return {'findings': list(findings), 'relation': read_relation(root), 'value': dict(value or {}),
          'mask': list(classes), 'box_classes': list(box_classes),
          **({'uncertain': True} if has_uncertain(root) else {})}


def read_relation(root: pathlib.Path) -> str:
  """The relation of the findings, see `dataset.dataset_info`."""
  classes = read_classes(load_labels(root))
  return classes.relation if classes else 'independent'


def has_uncertain(root: pathlib.Path) -> bool:
  """Whether records say which labels are uncertain."""
  return read_relation(root) == 'independent' and marks_uncertain(load_labels(root))


def make_builder(name: str, root: pathlib.Path) -> type[tfds.core.GeneratorBasedBuilder]:
  """A TFDS builder class of this name, with a finding for each label column of the table in `root`."""
  findings, value, classes, box_classes = read_schema(root)
  relation, uncertain, archive = read_relation(root), has_uncertain(root), make_archive(name)

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of a custom dataset; see docs/own-data.md."""

    VERSION = dataset.VERSION
    BUILDER_CONFIGS = dataset.CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = archive.instructions()

    def _info(self) -> tfds.core.DatasetInfo:
      return dataset.dataset_info(
        self, homepage='', findings=findings, value=value, mask=classes, box_classes=box_classes,
        relation=relation, uncertain=uncertain, negative_images=[])

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
      def reader(root: pathlib.Path, files: Mapping[str, int]) -> dataset.Contents:
        warn_of_others(root)
        contents, negatives = read_contents(root, files, classes, box_classes)
        self.info.metadata['negative_images'] = negatives
        return contents
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
  table = load_labels(root)
  columns = table.header
  repeated = [column for column, count in collections.Counter(columns).items() if count > 1 or not column]
  if repeated:
    raise InvalidDataset(f'{root / TABLE}: every column needs a name of its own, see {repeated}')
  garbled = [column for column in columns if plain_text.GARBLED.search(column)]
  if garbled:
    raise InvalidDataset(
      f'{root / TABLE} has control characters in the column name {plain_text.escape(garbled[0])[:100]!r}: remove them')
  for needed, meaning in (
      ('image', 'the path below images/'),
      ('patient', 'all images of a patient must be in one split; with one image per patient, repeat the image')):
    if needed not in columns:
      raise InvalidDataset(f'{root / TABLE} has no column {needed!r} ({meaning}); it has {", ".join(columns)}')
  values = [match for column in columns if (match := VALUE.fullmatch(column))]
  if len(values) > 1:
    raise InvalidDataset(f'{root / TABLE} has {len(values)} value columns; at most one is allowed')
  findings = tuple(column for column in columns if column not in COLUMNS and not VALUE.fullmatch(column)
                   and not COLUMN.fullmatch(column))
  if one_of := read_classes(table):
    if findings:
      raise InvalidDataset(f'{root / TABLE} has the column {one_of.column!r} and findings ({", ".join(findings[:5])}): '
                           f'keep one of them, and make a second dataset for the other')
    findings = one_of.names
  return findings, {'name': 'value', 'unit': values[0]['unit'] or ''} if values else None, *read_class_names(root)


def read_class_names(root: pathlib.Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Names of the mask classes and of the box classes; empty without masks or boxes."""
  classes: tuple[str, ...] = ()
  box_classes: tuple[str, ...] = ()
  if (root / 'masks').is_dir():
    classes = ('background', 'foreground')
    if (root / 'classes.txt').exists():
      lines = plain_text.read_text(root / 'classes.txt').splitlines()
      classes = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(classes) < label_columns.UNANNOTATED:
      raise InvalidDataset(f'{root / "classes.txt"} names {len(classes)} classes; name 2 to 254, background first')
  if (root / 'boxes.json').exists():
    box_classes = tuple(dict.fromkeys(load_boxes(root).class_names.values()))
  return classes, box_classes


def exclude_each_other(labels: Sequence[Mapping[str, Any]]) -> bool:
  """Whether each of many images is known to have exactly one of three or more findings."""
  return len(labels) >= MANY and len(labels[0].get('present', ())) > 2 and all(
    all(label['label_mask']) and sum(label['present']) == 1 for label in labels)


def list_others(root: pathlib.Path) -> list[pathlib.Path]:
  """Tables and folders in the folder of a dataset that belong to no dataset's layout, sorted: people keep several
  versions of a table side by side."""
  known = make_archive(root.name).files
  paths = sorted(root.iterdir()) if root.is_dir() else []
  return [path for path in paths if path.name not in known and not archives.is_junk(path.name)
          and (path.suffix.lower() in TABLES or path.stem.lower() == TABLE or path.is_dir())]


def warn_of_others(root: pathlib.Path) -> None:
  """Warns of what the build does not read."""
  others = [path.name for path in list_others(root)]
  if others:
    shown = ', '.join(others[:5]) + (f' and {len(others) - 5} more' if len(others) > 5 else '')
    log.warning('%s: not read: %s. Read are %s', plain_text.escape(str(root)), plain_text.escape(shown),
                ', '.join(make_archive(root.name).files))


def describe_no_match(root: pathlib.Path, pictures: Sequence[str], table: tables.Table) -> str:
  """What to correct where no row of the table names an image."""
  folder = root / 'images'
  if not pictures:
    return f'{folder} has no image: put the images there, and keep {TABLE} beside that folder'
  line, row = next(((line, row) for line, row in table.rows if not tables.is_missing(row['image'])), table.rows[0])
  other_ending = next((name for name in pictures if fold(stem(name)) == fold(stem(clean_path(row['image'])))), None)
  remedy = (f'write the ending that the file has, {plain_text.escape(other_ending)}' if other_ending else
            f'it must be a path below that folder, such as {plain_text.escape(min(pictures))}')
  return (f'{table.path} line {line}: no image of {folder} is called {quote(row["image"])}, and no other row names one '
          f'either: {remedy}')


def read_archive(
    root: pathlib.Path, files: Mapping[str, int], classes: Sequence[str],
    box_classes: Sequence[str]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out. Arguments and errors are those of `read_contents`."""
  return read_contents(root, files, classes, box_classes)[0]


def read_contents(
    root: pathlib.Path, files: Mapping[str, int], classes: Sequence[str],
    box_classes: Sequence[str]) -> tuple[dataset.Contents, list[str]]:
  """What `dataset.Contents` has, and the sorted ids of the negative images.

  A negative is an image that boxes.json lists without a box: somebody looked at it. An image that boxes.json does not
  list is none, nor is one with a rejected box or a crowd.

  Args:
    root: of the dataset.
    files: {relative path: bytes}.
    classes: names of the mask classes.
    box_classes: names of the box classes.

  Raises:
    InvalidDataset: the message says which line, annotation or file to correct.
  """
  pictures = [path.removeprefix('images/') for path in files if path.startswith('images/')]
  table = load_labels(root)
  if table.ragged:
    raise InvalidDataset(f'{table.path}: {table.ragged[0]}')
  picture_of = match_names((row['image'] for _, row in table.rows), pictures)
  if table.rows and not picture_of:
    raise InvalidDataset(describe_no_match(root, pictures, table))
  in_table = dict.fromkeys(picture_of.values())
  ids, patients = name_images(in_table), merge_patients([row['patient'] for _, row in table.rows])
  mask_of, rejects = match_masks([path for path in files if path.startswith('masks/')], ids)
  one_of, uncertain = read_classes(table), has_uncertain(root)
  if one_of:
    warn_of_typos(table, one_of)
  drawn = read_boxes(root, pictures, box_classes) if box_classes else Boxes({}, set(), [], {})
  entries = []
  for line, row in table.rows:
    name = picture_of.get(row['image'])
    if name is None:
      missing = tables.is_missing(row['image'])
      rejects.append(dataset.Reject('' if missing else stem(clean_path(row['image'])),
                                    TABLE if missing else clean_path(row['image']), f'row without image: line {line}'))
    elif tables.is_missing(row['patient']):
      rejects.append(dataset.Reject(ids[name], f'images/{name}', f'row without patient: line {line}'))
    else:
      cells = {column: cell for column, cell in row.items() if not COLUMN.fullmatch(column)}
      entry = read_row({**cells, 'patient': patients[row['patient']]}, name, root / 'images' / name,
                       f'{table.path} line {line}', uncertain)
      if one_of:
        entry = one_of.label(entry, row[one_of.column])
      mask = functools.partial(masks.read, root / mask_of[name], len(classes)) if name in mask_of else None
      entries.append(dataclasses.replace(
        entry, image_id=ids[name], mask=mask, objects=tuple(drawn.objects.get(name, ()))))
  rejects += [dataset.Reject(stem(name), f'images/{name}', 'image without row') for name in pictures
              if name not in in_table]
  check_boxes(root, entries, drawn)
  if not one_of and exclude_each_other([entry.fields for entry in entries]):
    log.warning('%s: exactly one finding is present in every image. If they exclude each other, write one column class '
                'with the name of the finding, or grade', table.path)
  negatives = {ids[name] for name, found in drawn.objects.items()
               if name in ids and not found and name not in drawn.doubtful}
  return (entries, rejects + drawn.rejects, drawn.left_out), sorted(negatives)
