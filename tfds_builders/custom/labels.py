"""The table of a custom dataset, labels.csv."""
import collections
import dataclasses
import logging
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfds_builders.common import dataset, plain_text, tables
from tfds_builders.custom import file_names

TABLE = 'labels.csv'
TEXTS = ('study', 'part', 'view')
COLUMNS = ('image', 'patient', *TEXTS, 'sex', 'age', 'split')  # also 'value (unit)'; any other column is a finding
VALUE = re.compile(r'value(?: \((?P<unit>.+)\))?', re.IGNORECASE)
UNNAMED = re.compile(r'(?:Unnamed: \d+)?')  # how pandas writes and reads a column without a name
SHORTENED = re.compile(r'\d(?:[.,]\d+)?E\+\d+', re.IGNORECASE)  # a long number as a spreadsheet shows it
DECIMAL_COMMA = re.compile(r'[+-]?\d+,\d+')
THOUSANDS = re.compile(r'[+-]?\d{1,3},\d{3}')  # may be a number with a decimal comma, or one of thousands
UNCERTAIN = ('-1', '-1.0')  # as in CheXpert's tables
LABELS = {**tables.FLAGS, **dict.fromkeys(UNCERTAIN)}
LINE_BREAK = re.compile(r'\s*[\r\n]+\s*')
MAX_VALUE = 10**9  # the square must fit into float32
SHOWN = 80  # characters of a wrong cell in a message
SEXES = {'f': 'F', 'female': 'F', 'm': 'M', 'male': 'M'}
OFFICIAL = {'train': 'train', 'training': 'train', 'val': 'validation', 'valid': 'validation',
            'validation': 'validation', 'test': 'test'}

log = logging.getLogger(__name__)


class InvalidDataset(ValueError):
  """A mistake in labels.csv, classes.txt or boxes.json that the user can correct; the message says where."""


def load_labels(root: pathlib.Path) -> tables.Table:
  """The table, with known columns in lower case, clean cells, and decimal points.

  Case and blanks in the names of known columns do not count. A column without a name is left out if it is empty or
  numbers the rows, as pandas writes it. A comma is a decimal comma where it cannot be anything else.

  Raises:
    InvalidDataset: a column has decimal commas and points, or an id of a patient was shortened.
    ValueError: not a CSV file.
  """
  table = tables.load_table(root / TABLE, ('image', 'patient'))
  columns = {name: name.lower() if name.lower() in COLUMNS else name for name in table.header}
  rows = [(line, {columns[name]: cell.strip().strip(tables.INVISIBLE).strip() for name, cell in row.items()})
          for line, row in table.rows]
  unused = {name for name in table.header if UNNAMED.fullmatch(name) and table.header.count(name) == 1
            and numbers_rows([row[name] for _, row in rows])}
  rows = [(line, {name: cell for name, cell in row.items() if name not in unused}) for line, row in rows]
  header = tuple(columns[name] for name in table.header if name not in unused)
  for column in set(header) - {'image', 'patient', *TEXTS, 'sex', 'split'}:
    replace_commas(rows, column, table)
  for line, row in rows:
    if SHORTENED.fullmatch(row.get('patient', '')):
      raise InvalidDataset(f'{table.path} line {line}: patient is {row["patient"]!r}, a long number that a program has '
                           'shortened, so patients cannot be told apart: give the column the type text and save again')
  return dataclasses.replace(table, header=header, rows=rows)


def numbers_rows(cells: Sequence[str]) -> bool:
  """Whether a column is empty or counts 0, 1, 2, ... or 1, 2, 3, ..."""
  return all(map(tables.is_missing, cells)) or any(
    list(cells) == [str(i + start) for i in range(len(cells))] for start in (0, 1))


def replace_commas(rows: Sequence[tuple[int, dict[str, str]]], column: str, table: tables.Table) -> None:
  """Turns the decimal commas of a column into points, in place. Only semicolons tell that 1,500 is not 1500."""
  commas = [line for line, row in rows if DECIMAL_COMMA.fullmatch(row[column])]
  if not commas or table.delimiter != ';' and any(THOUSANDS.fullmatch(row[column]) for _, row in rows):
    return
  for line, row in rows:
    if '.' in row[column]:
      raise InvalidDataset(f'{table.path} line {line}: {column} is {quote(row[column])}, but line {commas[0]} has a '
                           'decimal comma: write every number with a decimal point')
    row[column] = row[column].replace(',', '.')


def merge_patients(patients: Sequence[str]) -> dict[str, str]:
  """{cell: id of the patient}. '1' and '1.0' are one patient where both occur, as are two Unicode forms of a name.

  Warns of ids that differ in case or leading zeros only. They may be one patient, whose images must not be in two
  splits.
  """
  cells = {cell: plain_text.normalise(cell) for cell in dict.fromkeys(patients)}
  all_ids = set(cells.values())
  merged = {cell: whole if (whole := tables.drop_point_zero(name)) in all_ids else name for cell, name in cells.items()}
  similar: dict[str, list[str]] = collections.defaultdict(list)
  for name in dict.fromkeys(merged.values()):
    similar[re.sub(r'^0+(?=\d)', '', name.casefold())].append(name)
  pairs = [' and '.join(map(repr, names[:3])) for names in similar.values() if len(names) > 1]
  if pairs:
    log.warning('%s: patients %s count as different. If they are the same, write them alike: all images of a patient '
                'belong into one split', TABLE, plain_text.escape('; '.join(pairs[:3])))
  return merged


def list_findings(columns: Iterable[str]) -> list[str]:
  return [column for column in columns if column not in COLUMNS and not VALUE.fullmatch(column)]


def marks_uncertain(table: tables.Table) -> bool:
  """Whether any label of the table is uncertain. Only then records say which."""
  findings = list_findings(table.header)
  return any(row[finding] in UNCERTAIN for _, row in table.rows for finding in findings)


def read_row(row: Mapping[str, str], name: str, path: pathlib.Path, where: str,
             uncertain: bool = False) -> dataset.Entry:
  """One line of the table as an entry, without mask and boxes.

  Args:
    row: {column: cell}.
    name: of the image, below images/.
    path: of the image file.
    where: file and line, for messages.
    uncertain: whether to say which labels are uncertain, see `marks_uncertain`.

  Raises:
    InvalidDataset: a cell is not allowed.
  """
  labels = {column: look_up(LABELS, cell, f'{where}: {column}',
                            '1, 0, or nothing if unknown, or remove the column if it is no finding')
            for column in list_findings(row) for cell in [row[column]]}
  fields: dict[str, Any] = {column: LINE_BREAK.sub(' ', row[column]) for column in TEXTS
                            if not tables.is_missing(row.get(column, ''))}
  fields['sex'] = look_up(SEXES, row.get('sex', ''), f'{where}: sex', 'F, M or nothing') or ''
  age = row.get('age', '')
  fields['age'] = dataset.UNKNOWN_AGE if tables.is_missing(age) else read_number(
    age, f'{where}: age', 0, dataset.MAX_AGE)
  if labels:
    fields['present'] = [float(bool(label)) for label in labels.values()]
    fields['label_mask'] = [label is not None for label in labels.values()]
    if uncertain:
      fields['uncertain'] = [row[finding] in UNCERTAIN for finding in labels]
  for column in filter(VALUE.fullmatch, row):
    fields['value'] = [read_number(row[column], f'{where}: {column}', -MAX_VALUE, MAX_VALUE)]
  positive = ' '.join(finding for finding, label in labels.items() if label)
  return dataset.Entry(
    image_id=file_names.stem(name), patient=row['patient'], path=path, stratum=positive, paper_group=positive,
    fields=fields,
    official_split=look_up(OFFICIAL, row.get('split', ''), f'{where}: split', 'train, validation, test or nothing')
    or '')


def look_up(table: Mapping[str, Any], cell: str, where: str, choices: str) -> Any:
  """What a cell stands for, None if it is missing."""
  if tables.is_missing(cell):
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
