"""Reads the tables of archives: CSV files as people, pandas and spreadsheets write them."""
import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Iterator, Sequence

from tfds_builders.common import plain_text

# What pandas, R and spreadsheets write for an empty cell, in lower case.
MISSING = ('', 'nan', '-nan', 'na', '<na>', 'n/a', '#n/a', '#na', '#n/a n/a', 'none', 'null', 'nat', '-1.#ind',
           '1.#ind', '-1.#qnan', '1.#qnan')
FLAGS = {'1': True, '1.0': True, 'true': True, '0': False, '0.0': False, 'false': False}
DELIMITERS = (',', ';', '\t', '|')
DIRECTIVE = re.compile('"?sep=(.)"?', re.IGNORECASE)  # a first line by which Excel states the delimiter
INVISIBLE = '\ufeff\u200b\u200e\u200f'  # byte order mark, zero-width space and directions: left by copy and paste
WHOLE = re.compile(r'^(-?\d+)\.0+$')


def read_flag(cell: str) -> bool | None:
  """A cell that is 1 or 0, as whole number, float or truth value; None for anything else."""
  return FLAGS.get(cell.strip().lower())


def is_missing(cell: str) -> bool:
  """Whether a cell is empty or what programs write for an empty one, such as 'nan' or '<NA>'."""
  return cell.strip().lower() in MISSING


def drop_point_zero(cell: str) -> str:
  """'12' for '12.0'; other cells as they are. pandas writes whole numbers so if a cell of their column is empty."""
  return WHOLE.sub(r'\1', cell)


@dataclasses.dataclass(frozen=True)
class Table:
  """A CSV file with a header.

  Attributes:
    path: of the file.
    header: names of the columns, without blanks around them and in Unicode's composed form.
    rows: [(number of its first line, counted from 1 as editors do, {column: cell}), ...] without empty rows.
    ragged: [reason, ...] of the rows that were left out. A row with another number of cells than the header is left
      out, since its cells cannot be matched to columns; empty cells at its end do not count.
    delimiter: one of DELIMITERS.
  """
  path: pathlib.Path
  header: tuple[str, ...]
  rows: list[tuple[int, dict[str, str]]]
  ragged: list[str]
  delimiter: str


def read_table(path: pathlib.Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
  """Reads a CSV file with a header.

  Args:
    path: of the file.
    columns: names that the header must have.

  Returns:
    [{column: cell}, ...] and [reason, ...] of the rows that were left out, see `Table`.

  Raises:
    ValueError: not a CSV file, or a required column is missing or repeated.
  """
  table = load_table(path, columns)
  absent = [name for name in columns if table.header.count(name) != 1]
  if absent:
    raise ValueError(f'{path} must have each of these columns once: {absent}. Its header is {list(table.header)}. '
                     'Is it the table as downloaded?'[:1000])
  return [row for _, row in table.rows], table.ragged


def load_table(path: pathlib.Path, columns: Sequence[str] = ()) -> Table:
  """Reads a CSV file whose header may be anything; `columns` are expected there and decide between delimiters.

  Raises:
    ValueError: not a CSV file.
  """
  text = plain_text.read_text(path)
  delimiter = find_delimiter(text, columns)
  numbered = list(number_rows(path, text, delimiter))
  header = [clean_name(cell) for cell in numbered[0][1]] if numbered else []
  while header and not header[-1] and not any(cell.strip() for _, row in numbered for cell in row[len(header) - 1:]):
    header.pop()  # spreadsheets write empty columns at the end
  rows, ragged = [], []
  for line, row in numbered[1:]:
    if not any(cell.strip() for cell in row[len(header):]):
      row = row[:len(header)]
    if len(row) == len(header):
      rows.append((line, dict(zip(header, row, strict=True))))
    else:
      ragged.append(f'row unlike its header: line {line} has {len(row)} cells, not {len(header)}')
  return Table(path, tuple(header), rows, ragged, delimiter)


def clean_name(cell: str) -> str:
  """A column name without blanks and invisible characters around it, in Unicode's composed form."""
  return plain_text.normalise(cell.strip().strip(INVISIBLE).strip())


def read_rows(path: pathlib.Path) -> list[list[str]]:
  """All rows of a CSV file but the empty ones, also a header, as lists of cells; raises ValueError."""
  text = plain_text.read_text(path)
  return [row for _, row in number_rows(path, text, find_delimiter(text, ()))]


def find_delimiter(text: str, columns: Sequence[str]) -> str:
  """The character that separates the cells of a CSV file.

  European spreadsheets write semicolons, copying from a spreadsheet gives tabs. Of several that are in the first line,
  the one that separates most of the expected `columns` counts, then the first of DELIMITERS.
  """
  first = next((line for line in text.splitlines() if line.strip()), '')
  directive = DIRECTIVE.fullmatch(first.strip(' '))
  if directive and directive[1] in DELIMITERS:
    return directive[1]
  wanted = {name.lower() for name in columns}

  def count(delimiter: str) -> int:
    return len(wanted & {clean_name(cell).lower() for cell in first.replace('"', '').split(delimiter)})
  return max([mark for mark in DELIMITERS if mark in first] or DELIMITERS, key=count)


def number_rows(path: pathlib.Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (number of its first line, cells) of the rows of a CSV text but the empty ones. Lines count from 1."""
  table = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
  before = 0
  try:
    for row in table:
      line, before = before + 1, table.line_num
      stated = line == 1 and DIRECTIVE.fullmatch(delimiter.join(row).strip(' '))
      if any(cell.strip() for cell in row) and not stated:
        yield line, row
  except csv.Error as error:
    raise ValueError(f'{path} line {table.line_num} is not a valid CSV row: {error}') from error
