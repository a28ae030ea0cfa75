"""Labels of which exactly one is right: the column `class` or `grade` of labels.csv.

| column | cells | relation of the findings |
|---|---|---|
| `class` or `class (title)` | the name of the class | exclusive |
| `grade` or `grade (title)` | whole numbers from 0 | ordinal |
| `grade (none < mild < severe)` | one of these names | ordinal |
"""
import collections
import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence

from tfds_builders.common import dataset, plain_text, tables
from tfds_builders.common.suggest import find_near
from tfds_builders.custom.labels import InvalidDataset, quote

log = logging.getLogger(__name__)

COLUMN = re.compile(r'(?P<relation>class|grade)(?: \((?P<title>.+)\))?', re.IGNORECASE)
WHOLE = re.compile(r'\d{1,2}')
MAX_CLASSES = 100
RELATIONS = {'class': 'exclusive', 'grade': 'ordinal'}


@dataclasses.dataclass(frozen=True)
class Classes:
  """Attributes:
    column: of the table.
    relation: 'exclusive' or 'ordinal', as in `dataset.dataset_info`.
    place: {cell: index of its class}.
    names: of the classes; those of grades from the least to the most severe.
  """
  column: str
  relation: str
  place: Mapping[str, int]
  names: tuple[str, ...]

  def label(self, entry: dataset.Entry, cell: str) -> dataset.Entry:
    """The entry with its class; an empty cell is unknown."""
    index = self.place.get(cell)
    name = '' if index is None else self.names[index]
    label = {'present': [float(place == index) for place in range(len(self.names))],
             'label_mask': [index is not None] * len(self.names)}
    return dataclasses.replace(entry, fields=entry.fields | label, stratum=name, paper_group=name)


def read_classes(table: tables.Table) -> Classes | None:
  """The classes of a table, None if it has no such column.

  Raises:
    InvalidDataset: the message says what to correct.
  """
  columns = [column for column in table.header if COLUMN.fullmatch(column)]
  if not columns:
    return None
  if len(columns) > 1:
    raise InvalidDataset(f'{table.path} has the columns {", ".join(columns)}: keep one column class or grade')
  column = columns[0]
  match = COLUMN.fullmatch(column)
  assert match is not None
  cells = {row[column]: line for line, row in reversed(table.rows) if not tables.is_missing(row[column])}
  if match['relation'].lower() == 'class':
    place = place_names(table, column, sorted(cells))
  elif '<' in (match['title'] or ''):
    place = place_steps(table, column, match['title'], cells)
  else:
    return Classes(column, 'ordinal', *place_numbers(table, column, match['title'] or 'grade', cells))
  return Classes(column, RELATIONS[match['relation'].lower()], place, tuple(place))


def place_names(table: tables.Table, column: str, names: Sequence[str]) -> dict[str, int]:
  """{cell: its place} of the names of classes."""
  alike = collections.Counter(plain_text.normalise(name).casefold() for name in names)
  twice = [name for name in names if alike[plain_text.normalise(name).casefold()] > 1]
  if twice:
    raise InvalidDataset(f'{table.path}: {column} has {" and ".join(map(quote, twice[:2]))}, which differ in case '
                         f'only: write a class always alike')
  if not 2 <= len(names) <= MAX_CLASSES:
    raise InvalidDataset(f'{table.path}: {column} has {len(names)} different classes: it must have 2 to {MAX_CLASSES}')
  return {name: place for place, name in enumerate(names)}


def warn_of_typos(table: tables.Table, classes: Classes) -> None:
  """Warns of a class with one image whose name is like that of another class."""
  counts = collections.Counter(row[classes.column] for _, row in table.rows)
  for name in classes.place:
    near = find_near(name, [other for other in classes.place if counts[other] > 1])
    if classes.relation == 'exclusive' and counts[name] == 1 and near:
      log.warning('%s: the class %s has one image: is it %s?', table.path, quote(name), quote(near))


def place_steps(table: tables.Table, column: str, title: str, cells: Mapping[str, int]) -> dict[str, int]:
  """{cell: its place} of grades whose names and order the header says."""
  names = [name.strip() for name in title.split('<')]
  if len(set(names)) < len(names) or not all(names):
    raise InvalidDataset(f'{table.path}: {column} must name each grade once, as in grade (none < mild < severe)')
  for cell, line in cells.items():
    if cell not in names:
      raise InvalidDataset(f'{table.path} line {line}: {column} is {quote(cell)}: write one of {", ".join(names)}, or '
                           f'nothing if unknown')
  return {name: place for place, name in enumerate(names)}


def place_numbers(table: tables.Table, column: str, title: str,
                  cells: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
  """({cell: its place}, names) of grades that are numbers. Grades between them that no image has count too."""
  for cell, line in cells.items():
    if not WHOLE.fullmatch(tables.drop_point_zero(cell)):
      raise InvalidDataset(f'{table.path} line {line}: {column} is {quote(cell)}: write a whole number from 0 to 99, '
                           f'or nothing if unknown; for names write the column as grade (none < mild < severe)')
  numbers = {cell: int(float(cell)) for cell in cells}
  if len(set(numbers.values())) < 2:
    raise InvalidDataset(f'{table.path}: {column} has {len(set(numbers.values()))} different grades: it must have at '
                         f'least 2')
  first, last = min(numbers.values()), max(numbers.values())
  return ({cell: number - first for cell, number in numbers.items()},
          tuple(f'{title} {number}' for number in range(first, last + 1)))
