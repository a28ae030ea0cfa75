"""Rules for the fields of a config. A rule says in words what a field may hold, checks a value, and may suggest one."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Collection
from typing import Any

from tfds_builders.common import paths

NAME = re.compile(r'[a-z][a-z0-9_]{0,63}')  # of a dataset; it is also the name of a folder
MAX_NAME, MAX_PATH = 255, 4000  # bytes that Linux accepts in a name and in a path


@dataclasses.dataclass(frozen=True)
class Rule:
  """Attributes:
    words: what the value must be, for messages: 'it must be ...'.
    fits: value -> whether the rule allows it.
    suggest: value -> an allowed value near it; None if there is no sensible one.
    choices: all allowed values, where they can be listed.
    explain: value -> what is wrong with it, if that can be said shorter than what is allowed; else ''.
  """

  words: str
  fits: Callable[[Any], bool]
  suggest: Callable[[Any], Any] = lambda value: None
  choices: Collection = ()
  explain: Callable[[Any], str] = lambda value: ''


def whole(low: int, high: int) -> Rule:
  """A whole number from `low` to `high`."""
  return Rule(f'a whole number from {low} to {high}', lambda value: is_whole(value) and low <= value <= high,
              lambda value: min(max(math.floor(value), low), high) if is_number(value) else low)


def number(low: float, high: float, default: float | None = None) -> Rule:
  """A number from `low` to `high`. For a value that is not a number, `default` is suggested, or `low` if there is no
  default."""
  fallback = low if default is None else default
  return Rule(f'a number from {low} to {high}', lambda value: is_number(value) and low <= value <= high,
              lambda value: min(max(value, low), high) if is_number(value) else fallback)


def span(low: float, high: float) -> Rule:
  """Two numbers from `low` to `high`, in ascending order (they may be equal)."""
  return Rule(f'two numbers from {low} to {high}, the smaller one first',
              lambda value: is_row(value, 2, 2, number(low, high).fits) and value[0] <= value[1])


def descending(low: float, high: float) -> Rule:
  """() or two numbers from `low` to `high`, in descending order (they may be equal)."""
  return Rule(f'() or two numbers from {low} to {high}, the larger one first', lambda value: is_row(
    value, 0, 0, number(low, high).fits) or is_row(value, 2, 2, number(low, high).fits) and value[1] <= value[0])


def sample() -> Rule:
  """(number of candidates, the maximum number of them that are objects)"""
  return Rule('two whole numbers from 1 to 10000, the larger one first',
              lambda value: is_row(value, 2, 2, whole(1, 10_000).fits) and value[1] <= value[0])


def row(rule: Rule, shortest: int, longest: int) -> Rule:
  """A tuple of `shortest` to `longest` values that each fit `rule`."""
  count = shortest if shortest == longest else f'{shortest} to {longest}'
  return Rule(f'a tuple of {count} values, each {rule.words}',
              lambda value: is_row(value, shortest, longest, rule.fits))


def levels() -> Rule:
  """The anchor sizes of the five levels of the feature pyramid, the same number on each level."""
  size = number(0.1, 10_000).fits
  return Rule('five tuples of the same length, of numbers from 0.1 to 10000', lambda value: is_row(
    value, 5, 5, lambda sizes: is_row(sizes, 1, 16, size)) and len({len(sizes) for sizes in value}) == 1)


def choice(choices: Collection) -> Rule:
  """One of `choices`, which are strings or whole numbers."""
  return Rule('one of these', lambda value: isinstance(value, str | int) and value in choices, choices=choices)


def word_or_share(word: str) -> Rule:
  """A word, or a number between 0 and 1 as text."""
  return Rule(f'{word!r}, or a number above 0 and below 1 as text, such as \'0.95\'',
              lambda value: isinstance(value, str) and (value == word or is_share(value)), lambda value: word)


def class_weights() -> Rule:
  """'none', 'balanced', or numbers separated by commas."""
  return Rule("'none', 'balanced', or a number from 0.001 to 1000 for each class, such as '1,3.5'",
              lambda value: isinstance(value, str) and (value in ('none', 'balanced') or are_weights(value)),
              lambda value: 'none')


def flag() -> Rule:
  return Rule('True or False', lambda value: isinstance(value, bool))


def text(shortest: int = 0, longest: int = 1000) -> Rule:
  return Rule(f'a string of {shortest} to {longest} printable characters',
              lambda value: isinstance(value, str) and shortest <= len(value) <= longest and value.isprintable())


def path(shortest: int = 0) -> Rule:
  """A path of the local file system. Bucket URLs (gs://...) and ~ are refused, because only some of the libraries
  understand them. `config.paths` checks folders for more."""
  return Rule('a local path of printable characters (mount buckets, write ~ out in full)'
              + ', or empty' * (shortest == 0), lambda value: isinstance(value, str) and is_path(value, shortest),
              explain=lambda value: paths.find_name_defect(value) if isinstance(value, str) else '')


def name() -> Rule:
  return Rule('a name of at most 64 lower-case letters, digits and _, starting with a letter',
              lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None)


def is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
  return is_whole(value) or isinstance(value, float) and math.isfinite(value)


def are_weights(value: str) -> bool:
  try:
    return all(0.001 <= float(number) <= 1000 for number in value.split(','))
  except ValueError:
    return False


def is_share(value: str) -> bool:
  return re.fullmatch(r'0?\.\d{1,9}', value) is not None and float(value) > 0


def is_row(value: Any, shortest: int, longest: int, fits: Callable[[Any], bool]) -> bool:
  return isinstance(value, tuple | list) and shortest <= len(value) <= longest and all(map(fits, value))


def is_path(value: str, shortest: int) -> bool:
  if len(value.strip()) < shortest or paths.find_name_defect(value) or value.startswith('~'):
    return False
  return len(value.encode()) < MAX_PATH and all(
    len(part.encode()) <= MAX_NAME for part in pathlib.PurePath(value).parts)
