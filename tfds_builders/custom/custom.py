"""Builder for your own X-rays: any folder in the layout that README.md beside this file describes."""
import collections
import dataclasses
import functools
import logging
import math
import os
import pathlib
import posixpath
import re
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import PIL.ExifTags
import PIL.Image
import tensorflow_datasets as tfds

from tfds_builders.common import archives, boxes, dataset, dicom, images, masks, records

TABLE = 'labels.csv'
NAME = re.compile(r'[a-z][a-z0-9_]*')
TEXTS = ('study', 'part', 'view')
COLUMNS = ('image', 'patient', *TEXTS, 'sex', 'age', 'split')  # also 'value (unit)'; any other column is a finding
VALUE = re.compile(r'value(?: \((?P<unit>.+)\))?', re.IGNORECASE)
UNNAMED = re.compile(r'(?:Unnamed: \d+)?')  # how pandas writes and reads a column without a name
WHOLE = re.compile(r'(\d+)\.0')  # a whole number as pandas writes it if others of its column are missing
DECIMAL_COMMA = re.compile(r'[+-]?\d+,\d+')
THOUSANDS = re.compile(r'[+-]?\d{1,3},\d{3}')  # may be a number with a decimal comma, or one of thousands
LABELS = {**archives.FLAGS, '-1': None, '-1.0': None}
LINE_BREAK = re.compile(r'\s*[\r\n]+\s*')
ENDING = re.compile(r'(?<=[^/])\.(?!\d+$)[^./]*$')
MAX_VALUE = 10**9  # the square must fit into float32
SHOWN = 80  # characters of a wrong cell in a message
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M'}
OFFICIAL = {'train': 'train', 'training': 'train', 'val': 'validation', 'valid': 'validation',
            'validation': 'validation', 'test': 'test'}
README = 'tfds_builders/custom/README.md'
TABLES = ('.csv', '.tsv', '.xls', '.xlsx', '.xlsm', '.ods', '.json', '.xml', '.parquet')  # suffixes in a warning

log = logging.getLogger(__name__)


class InvalidDataset(ValueError):
  """A mistake in labels.csv, classes.txt or boxes.json that the user can correct; the message says where."""


class UnknownDataset(archives.ArchiveMissing):
  """A name that is neither a builder's nor that of a custom dataset."""

  def __init__(self, name: str, root: pathlib.Path) -> None:
    self.dataset = name
    others = [path.name for path in list_others(root) if path.is_file()]
    there = f'. Save {" or ".join(others[:3])}, which is there, as {TABLE} (CSV UTF-8)' if others else ''
    FileNotFoundError.__init__(
      self, f'unknown dataset {name!r}: no builder has this name, and your own dataset would need {root / TABLE} '
      f'(names have small letters, digits and _; see {README}){archives.escape(there)}')


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
  archive = make_archive(name)

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builder of a custom dataset; see README.md beside it."""

    VERSION = dataset.VERSION
    BUILDER_CONFIGS = dataset.CONFIGS
    MANUAL_DOWNLOAD_INSTRUCTIONS = archive.instructions()

    def _info(self) -> tfds.core.DatasetInfo:
      return dataset.dataset_info(
        self, homepage='', findings=findings, value=value, mask=classes, box_classes=box_classes,
        negative_images=[])

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
  columns = load_labels(root).header
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
    box_classes = tuple(dict.fromkeys(load_boxes(root).class_names.values()))
  return classes, box_classes


def load_labels(root: pathlib.Path) -> archives.Table:
  """The table, with known columns in lower case, clean cells, and decimal points.

  Case and blanks in the names of known columns do not count. A column without a name is left out if it is empty or
  numbers the rows, as pandas writes it. A comma is a decimal comma where it cannot be anything else.

  Raises:
    InvalidDataset: a column has decimal commas and points.
    ValueError: not a CSV file.
  """
  table = archives.load_table(root / TABLE, ('image', 'patient'))
  columns = {name: name.lower() if name.lower() in COLUMNS else name for name in table.header}
  rows = [(line, {columns[name]: cell.strip().strip(archives.INVISIBLE).strip() for name, cell in row.items()})
          for line, row in table.rows]
  unused = {name for name in table.header if UNNAMED.fullmatch(name) and table.header.count(name) == 1
            and numbers_rows([row[name] for _, row in rows])}
  rows = [(line, {name: cell for name, cell in row.items() if name not in unused}) for line, row in rows]
  header = tuple(columns[name] for name in table.header if name not in unused)
  for column in set(header) - {'image', 'patient', *TEXTS, 'sex', 'split'}:
    replace_commas(rows, column, table)
  return dataclasses.replace(table, header=header, rows=rows)


def numbers_rows(cells: Sequence[str]) -> bool:
  """Whether a column is empty or counts 0, 1, 2, ... or 1, 2, 3, ..."""
  return all(map(archives.is_missing, cells)) or any(
    list(cells) == [str(i + start) for i in range(len(cells))] for start in (0, 1))


def replace_commas(rows: Sequence[tuple[int, dict[str, str]]], column: str, table: archives.Table) -> None:
  """Turns the decimal commas of a column into points, in place. Only semicolons tell that 1,500 is not 1500."""
  commas = [line for line, row in rows if DECIMAL_COMMA.fullmatch(row[column])]
  if not commas or table.delimiter != ';' and any(THOUSANDS.fullmatch(row[column]) for _, row in rows):
    return
  for line, row in rows:
    if '.' in row[column]:
      raise InvalidDataset(f'{table.path} line {line}: {column} is {quote(row[column])}, but line {commas[0]} has a '
                           'decimal comma: write every number with a decimal point')
    row[column] = row[column].replace(',', '.')


def load_boxes(root: pathlib.Path) -> boxes.Coco:
  """boxes.json; raises InvalidDataset."""
  try:
    return boxes.load_coco(root / 'boxes.json')
  except ValueError as error:
    raise InvalidDataset(str(error)) from error


def list_others(root: pathlib.Path) -> list[pathlib.Path]:
  """Tables and folders in the folder of a dataset that belong to no dataset's layout, sorted: people keep several
  versions of a table side by side."""
  known = make_archive(root.name).files
  paths = sorted(root.iterdir()) if root.is_dir() else []
  return [path for path in paths if path.name not in known and not archives.is_junk(path.name)
          and (path.suffix.lower() in TABLES or path.is_dir())]


def warn_of_others(root: pathlib.Path) -> None:
  """Warns of what the build does not read."""
  others = [path.name for path in list_others(root)]
  if others:
    shown = ', '.join(others[:5]) + (f' and {len(others) - 5} more' if len(others) > 5 else '')
    log.warning('%s: not read: %s. Read are %s', archives.escape(str(root)), archives.escape(shown),
                ', '.join(make_archive(root.name).files))


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
  in_table = dict.fromkeys(picture_of.values())
  ids, patients = name_images(in_table), merge_patients([row['patient'] for _, row in table.rows])
  mask_of, rejects = match_masks([path for path in files if path.startswith('masks/')], ids)
  drawn = read_boxes(root, pictures, box_classes) if box_classes else Boxes({}, set(), [], {})
  entries = []
  for line, row in table.rows:
    name = picture_of.get(row['image'])
    if name is None:
      missing = archives.is_missing(row['image'])
      rejects.append(dataset.Reject('' if missing else stem(clean_path(row['image'])),
                                    TABLE if missing else clean_path(row['image']), f'row without image: line {line}'))
    elif archives.is_missing(row['patient']):
      rejects.append(dataset.Reject(ids[name], f'images/{name}', f'row without patient: line {line}'))
    else:
      entry = read_row({**row, 'patient': patients[row['patient']]}, name, root / 'images' / name,
                       f'{table.path} line {line}')
      mask = functools.partial(masks.read, root / mask_of[name], len(classes)) if name in mask_of else None
      entries.append(dataclasses.replace(
        entry, image_id=ids[name], mask=mask, objects=tuple(drawn.objects.get(name, ()))))
  rejects += [dataset.Reject(stem(name), f'images/{name}', 'image without row') for name in pictures
              if name not in in_table]
  check_boxes(root, entries, drawn)
  negatives = {ids[name] for name, found in drawn.objects.items()
               if name in ids and not found and name not in drawn.doubtful}
  return (entries, rejects + drawn.rejects, drawn.left_out), sorted(negatives)


def match_names(names: Iterable[str], pictures: Collection[str]) -> dict[str, str]:
  """Which image a path in labels.csv or boxes.json means.

  Backslashes, './', 'images/', the Unicode form and percent-encoding do not count; neither does the case, if one image
  fits. If no name fits, all may begin with the same folder, such as /home/me/clinic/images.

  Args:
    names: as written.
    pictures: paths below images/.

  Returns:
    {name: path below images/} of the names that mean an image.
  """
  cleaned = {name: clean_path(name) for name in names if not archives.is_missing(name)}
  finders = [{picture: [picture] for picture in pictures}]
  for spell in (archives.normalise, lambda path: archives.normalise(path).casefold()):
    groups = collections.defaultdict(list)
    for picture in pictures:
      groups[spell(picture)].append(picture)
    finders.append(groups)

  def find(path: str) -> str | None:
    for spelling in (path, urllib.parse.unquote(path)):
      keys = spelling, archives.normalise(spelling), archives.normalise(spelling).casefold()
      for key, groups in zip(keys, finders, strict=True):
        if len(groups.get(key, ())) == 1:
          return groups[key][0]
    return None

  found = {name: find(path) for name, path in cleaned.items()}
  folders = list_common_folders(cleaned.values()) if not any(found.values()) else []
  for folder in folders:
    within = {name: find(path.removeprefix(folder)) for name, path in cleaned.items()}
    found = max(found, within, key=lambda matches: sum(map(bool, matches.values())))
  return {name: picture for name, picture in found.items() if picture}


def list_common_folders(paths: Collection[str]) -> list[str]:
  """The folders that all paths begin with, each with a slash at its end, from the shortest to the longest."""
  common = os.path.commonprefix([path.rsplit('/', 1)[0] + '/' if '/' in path else '' for path in paths])
  return [common[:place + 1] for place, character in enumerate(common) if character == '/']


def clean_path(name: str) -> str:
  """A path below images/ with forward slashes."""
  path = posixpath.normpath(name.replace('\\', '/')) if name else ''
  return path.removeprefix('images/')


def name_images(names: Iterable[str]) -> dict[str, str]:
  """{path below images/: image_id}. The id is the path without its ending, or with it if another image differs from it
  in the ending only."""
  stems = {name: stem(archives.normalise(name)) for name in names}
  counts = collections.Counter(stems.values())
  return {name: short if counts[short] == 1 else archives.normalise(name) for name, short in stems.items()}


def merge_patients(patients: Sequence[str]) -> dict[str, str]:
  """{cell: id of the patient}. '1' and '1.0' are one patient where both occur, as are two Unicode forms of a name.

  Warns of ids that differ in case or leading zeros only. They may be one patient, whose images must not be in two
  splits.
  """
  cells = {cell: archives.normalise(cell) for cell in dict.fromkeys(patients)}
  all_ids = set(cells.values())
  merged = {cell: WHOLE.sub(r'\1', name) if WHOLE.fullmatch(name) and WHOLE.sub(r'\1', name) in all_ids else name
            for cell, name in cells.items()}
  similar: dict[str, list[str]] = collections.defaultdict(list)
  for name in dict.fromkeys(merged.values()):
    similar[re.sub(r'^0+(?=\d)', '', name.casefold())].append(name)
  pairs = [' and '.join(map(repr, names[:3])) for names in similar.values() if len(names) > 1]
  if pairs:
    log.warning('%s: patients %s count as different. If they are the same, write them alike: all images of a patient '
                'belong into one split', TABLE, archives.escape('; '.join(pairs[:3])))
  return merged


def match_masks(paths: Iterable[str], ids: Collection[str]) -> tuple[dict[str, str], list[dataset.Reject]]:
  """{path below images/: path of its mask} and rejects.

  A mask has the path of its image, with another ending or with a second one: the mask of a/1.jpg is masks/a/1.png or
  masks/a/1.jpg.png. One that fits several images is rejected.
  """
  owners = collections.defaultdict(list)
  for name in ids:
    owners[stem(archives.normalise(name))].append(name)
  whole = {archives.normalise(name): name for name in ids}
  found: dict[str, str] = {}
  rejects = []
  for path in sorted(paths, key=lambda path: (not path.lower().endswith('.png'), path)):
    short = stem(archives.normalise(path.removeprefix('masks/')))
    names = [whole[short]] if short in whole else owners.get(short, [])
    if len(names) != 1:
      reason = f'mask of several images: {", ".join(names)}. Append .png to their names' if names else None
      rejects.append(dataset.Reject(short, path, reason or 'mask without image'))
    elif found.setdefault(names[0], path) != path:
      rejects.append(dataset.Reject(short, path, f'second mask of an image: the first is {found[names[0]]}'))
  return found, rejects


@dataclasses.dataclass(frozen=True)
class Boxes:
  """What boxes.json says about the images at hand.

  Attributes:
    objects: {path below images/: boxes} of the images that it lists.
    doubtful: those of them with a rejected box or a crowd.
    rejects: of boxes and images.
    left_out: {reason: count}.
    annotations: their number without those left out.
  """
  objects: dict[str, list[boxes.Box]]
  doubtful: set[str]
  rejects: list[dataset.Reject]
  left_out: dict[str, int]
  annotations: int = 0


def read_boxes(root: pathlib.Path, pictures: Collection[str], box_classes: Sequence[str]) -> Boxes:
  """Reads boxes.json. It may list images that are not at hand, as where one file is for training and test; they are
  left out. Raises InvalidDataset."""
  coco = load_boxes(root)
  picture_of = match_names(coco.sizes, pictures)
  annotated = {coco.file_names[one.image_id] for one in coco.annotations if one.image_id in coco.file_names}
  names = [name for name in annotated if name in picture_of]
  with futures.ThreadPoolExecutor(records.WORKERS) as pool:
    sizes = pool.map(read_size, [root / 'images' / picture_of[name] for name in names])
    real_sizes = {name: size for name, size in zip(names, sizes, strict=True) if size}
  try:
    drawn = boxes.place_boxes(coco, box_classes, real_sizes)
  except ValueError as error:
    raise InvalidDataset(str(error)) from error
  if drawn.scaled:
    name = drawn.scaled[0]
    width, height = coco.sizes[name] or (0, 0)
    log.warning('%s: %d images have more or fewer pixels than boxes.json states (first: %s, stated %g x %g, is %d x '
                '%d). Their boxes are scaled', coco.path, len(drawn.scaled), archives.escape(name), width, height,
                *real_sizes[name])
  objects: dict[str, list[boxes.Box]] = collections.defaultdict(list)
  for name, picture in picture_of.items():
    objects[picture] += drawn.boxes[name]
  rejected = [(name, reason) for name, reason in drawn.rejected if not name or name in picture_of]
  crowds = {name: count for name, count in drawn.left_out.items() if name in picture_of}
  left_out = {boxes.CROWD_LEFT_OUT: sum(crowds.values()),
              'image of boxes.json that is not in images/': len(coco.sizes.keys() - picture_of.keys())}
  return Boxes(
    objects, {picture_of[name] for name, _ in rejected if name} | {picture_of[name] for name in crowds},
    [dataset.Reject(stem(picture_of[name]) if name else '', 'boxes.json', reason) for name, reason in rejected],
    {reason: count for reason, count in left_out.items() if count},
    len(coco.annotations) - sum(drawn.left_out.values()))


def read_size(path: pathlib.Path) -> tuple[int, int] | None:
  """(width, height) of an image as displayed, from its header; None if that cannot be read: the file is rejected when
  its pixels are."""
  try:
    with open(path, 'rb') as file:
      if file.read(132)[128:] == b'DICM':
        height, width = dicom.read_size(path)
        return width, height
    with PIL.Image.open(path, formats=images.FORMATS) as image:
      turned = image.getexif().get(PIL.ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
      return (image.height, image.width) if turned else image.size
  except Exception:  # Pillow raises many types
    return None


def check_boxes(root: pathlib.Path, entries: Sequence[dataset.Entry], drawn: Boxes) -> None:
  """Raises InvalidDataset if boxes.json has annotations, and no image has a box."""
  if entries and drawn.annotations and not any(entry.objects for entry in entries):
    raise InvalidDataset(
      f'{root / "boxes.json"} has {drawn.annotations} annotations, but none gives a box of an image in {TABLE}. Its '
      f' file_name must be the path below images/, such as {archives.escape(entries[0].image_id)} with its ending'
      f'{"; first reject: " + drawn.rejects[0].reason if drawn.rejects else ""}'[:1000])


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
  fields: dict[str, Any] = {column: LINE_BREAK.sub(' ', row[column]) for column in TEXTS
                            if not archives.is_missing(row.get(column, ''))}
  fields['sex'] = look_up(SEXES, row.get('sex', ''), f'{where}: sex', 'F, M or nothing') or ''
  age = row.get('age', '')
  fields['age'] = dataset.UNKNOWN_AGE if archives.is_missing(age) else read_number(
    age, f'{where}: age', 0, dataset.MAX_AGE)
  if labels:
    fields['present'] = [float(bool(label)) for label in labels.values()]
    fields['label_mask'] = [label is not None for label in labels.values()]
  for column in filter(VALUE.fullmatch, row):
    fields['value'] = [read_number(row[column], f'{where}: {column}', -MAX_VALUE, MAX_VALUE)]
  positive = ' '.join(finding for finding, label in labels.items() if label)
  return dataset.Entry(
    image_id=stem(name), patient=row['patient'], path=path, stratum=positive, paper_group=positive, fields=fields,
    official_split=look_up(OFFICIAL, row.get('split', ''), f'{where}: split', 'train, validation, test or nothing')
    or '')


def look_up(table: Mapping[str, Any], cell: str, where: str, choices: str) -> Any:
  """What a cell stands for, None if it is missing."""
  if archives.is_missing(cell):
    return None
  if cell.lower() not in table:
    raise InvalidDataset(f'{where} is {quote(cell)}: write {choices}')
  return table[cell.lower()]


def read_number(cell: str, where: str, low: float, high: float) -> float:
  try:
    number = float(cell)
  except ValueError:
    number = math.nan
  if not low <= number <= high:
    point = ', with a decimal point' if ',' in cell else ''
    raise InvalidDataset(f'{where} is {quote(cell)}: write a number from {low} to {high}{point}')
  return number


def quote(cell: str) -> str:
  return repr(cell) if len(cell) <= SHOWN else f'{cell[:SHOWN]!r}... of {len(cell)} characters'


def stem(path: str) -> str:
  """A path without its ending. Dots in folders and before digits, as in the names of DICOM files, begin no ending."""
  return ENDING.sub('', path)
