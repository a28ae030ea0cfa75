"""What a page consists of: sections of tables, plots, pictures and words. `template/page.html.jinja` renders them.

Everything is plain text, which the template escapes, except `Markup`: that is HTML which is already safe.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

Cell = str | Markup


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells below a header; the first column names its row. `text_columns`: the columns that hold words; the
  others hold numbers. `wide_only`: the columns that narrow screens leave out. With `folded` the table is shown on a
  click on `caption`."""

  header: Sequence[Cell]
  rows: Sequence[Sequence[Cell]]
  caption: str = ''
  text_columns: Sequence[int] = (0,)
  wide_only: Sequence[int] = ()
  folded: bool = False
  kind: str = 'table'


@dataclasses.dataclass(frozen=True)
class Key:
  """An entry of a plot's legend: the colour (index into `figure.SERIES`), whether its line is dashed, and its name."""

  colour: int
  dashed: bool
  text: str


@dataclasses.dataclass(frozen=True)
class Plot:
  """A drawing as inline SVG."""

  svg: Markup
  title: str
  caption: str = ''
  keys: Sequence[Key] = ()
  kind: str = 'plot'


@dataclasses.dataclass(frozen=True)
class Plots:
  """Plots side by side, as many as fit. With `folded` they are shown on a click on `caption`."""

  plots: Sequence[Plot]
  caption: str = ''
  folded: bool = False
  kind: str = 'plots'


@dataclasses.dataclass(frozen=True)
class Picture:
  """An embedded image. `source` is its data URI."""

  source: str
  title: str
  caption: str = ''
  kind: str = 'picture'


@dataclasses.dataclass(frozen=True)
class Words:
  """A paragraph, or a list if there are several. `tone`: 'plain', 'muted', 'note' (framed) or 'warning'."""

  texts: Sequence[Cell]
  tone: str = 'plain'
  kind: str = 'words'


@dataclasses.dataclass(frozen=True)
class Headline:
  """The most important number of a section: what it is, its value, its interval, and what they mean."""

  name: str
  value: str
  interval: str
  meaning: str
  kind: str = 'headline'


@dataclasses.dataclass(frozen=True)
class Facts:
  """Short facts as pairs of name and value."""

  pairs: Sequence[tuple[str, Cell]]
  kind: str = 'facts'


Block = Table | Plots | Picture | Words | Headline | Facts


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a page with a title that the contents link to."""

  title: str
  blocks: Sequence[Block]

  @property
  def anchor(self) -> str:
    return re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-') or 'section'


@dataclasses.dataclass(frozen=True)
class Page:
  """A whole page. `problems`: what is missing or damaged, a sentence each; `phantoms`: whether the images are phantoms.
  """

  title: str
  subtitle: str
  sections: Sequence[Section]
  problems: Sequence[str] = ()
  phantoms: bool = False

  @property
  def parts(self) -> list[tuple[str, Section]]:
    """(anchor, section) of each section. Titles that differ only in letters beyond a to z share no anchor."""
    taken: dict[str, int] = {}
    parts = []
    for section in self.sections:
      number = taken[section.anchor] = taken.get(section.anchor, 0) + 1
      parts.append((section.anchor if number == 1 else f'{section.anchor}--{number}', section))
    return parts


def link(text: str, address: str) -> Markup:
  return Markup('<a href="{}">{}</a>').format(address, text)


def explain(name: str, meaning: str) -> Markup:
  """A name with its meaning in small letters below it."""
  return Markup('{}<small>{}</small>').format(name, meaning)


def bar(value: float | None, interval: Sequence[float] | None, scale: tuple[float, float],
        reference: float | None = None) -> Markup:
  """A score as a dot and its interval as a line, between the ends of `scale`; a thin line marks `reference`."""
  if value is None:
    return Markup('')
  low, high = interval or (value, value)
  places = {'low': low, 'high': high, 'value': value}
  style = ';'.join(f'--{name}:{find_place(number, scale):.1f}' for name, number in places.items())
  mark = '' if reference is None else Markup('<i style="--at:{}"></i>').format(f'{find_place(reference, scale):.1f}')
  return Markup('<span class="bar" style="{}" aria-hidden="true">{}</span>').format(style, mark)


def bar_of_share(score: Mapping[str, Any]) -> Cell:
  """The bar of {'value', 'interval'} from 0 to 1; empty for a score with another unit."""
  ends = [score['value'], *(score['interval'] or ())]
  drawn = all(end is not None and 0 <= end <= 1 for end in ends)
  return bar(score['value'], score['interval'], (0, 1)) if drawn else ''


def drop_if_empty(table: Table, column: int) -> Table:
  """The table without a column in which every cell is empty."""
  if any(row[column] for row in table.rows):
    return table
  kept = [other for other in range(len(table.header)) if other != column]

  def move(columns: Sequence[int]) -> list[int]:
    return [kept.index(each) for each in columns if each != column]
  return dataclasses.replace(
    table, header=[table.header[each] for each in kept], rows=[[row[each] for each in kept] for row in table.rows],
    text_columns=move(table.text_columns), wide_only=move(table.wide_only))


def find_place(number: float, scale: tuple[float, float]) -> float:
  """Where a number lies between the ends of a scale, in per cent from 0 to 100."""
  low, high = scale
  return 100 * min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 50.0


def shade(text: str, share: float) -> Markup:
  """A cell whose background is stronger the larger `share` is, from 0 to 1."""
  return Markup('<span class="shade" style="--share:{}">{}</span>').format(f'{share:.2f}', text)


def find_scale(numbers: Sequence[Any]) -> tuple[float, float]:
  """The range of numbers, without None, for `bar`; a little wider, so that the ends are seen."""
  known = [float(number) for number in numbers if number is not None]
  if not known:
    return 0.0, 1.0
  margin = 0.03 * (max(known) - min(known)) or 0.01
  return min(known) - margin, max(known) + margin
