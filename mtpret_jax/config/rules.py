"""What a field of a config may hold: a rule says it in words, checks it and, where it can, mends it."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Collection

NAME = re.compile(r'[a-z][a-z0-9_]{0,63}')  # of a dataset: it becomes a folder
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes that Linux takes


@dataclasses.dataclass(frozen=True)
class Rule:
  """`words`: what the value must be; `fits(value)`: whether it is; `mend(value)`: one that is, or None; `choices`: all
  that there are, where they can be listed."""

  words: str
  fits: Callable
  mend: Callable = lambda value: None
  choices: Collection = ()


def whole(least, most):
  return Rule(f'a whole number from {least} to {most}', lambda value: is_whole(value) and least <= value <= most,
              lambda value: min(max(math.floor(value), least), most) if is_number(value) else least)


def number(least, most, such=None):
  """`such`: what is proposed in place of what is no number; the least, where not given."""
  return Rule(f'a number from {least} to {most}', lambda value: is_number(value) and least <= value <= most,
              lambda value: min(max(value, least), most) if is_number(value) else least if such is None else such)


def span(least, most):
  """Two numbers, the first not above the second."""
  return Rule(f'two numbers from {least} to {most}, the smaller one first',
              lambda value: is_row(value, 2, 2, number(least, most).fits) and value[0] <= value[1])


def sample():
  """(candidates, at most so many of them objects)"""
  return Rule('two whole numbers from 1 to 10000, the larger one first',
              lambda value: is_row(value, 2, 2, whole(1, 10_000).fits) and value[1] <= value[0])


def row(rule, least, most):
  return Rule(f'{least} to {most} in brackets, each {rule.words}', lambda value: is_row(value, least, most, rule.fits))


def levels():
  """As many sides of anchors on each of five levels."""
  one = number(0.1, 10_000).fits
  return Rule('five rows of equally many numbers from 0.1 to 10000', lambda value: is_row(
    value, 5, 5, lambda sides: is_row(sides, 1, 16, one)) and len({len(sides) for sides in value}) == 1)


def choice(choices):
  return Rule('one of these', lambda value: isinstance(value, str | int) and value in choices, choices=choices)


def flag():
  return Rule('True or False', lambda value: isinstance(value, bool))


def text(least=0, most=1000):
  return Rule(f'{least} to {most} characters that can be printed',
              lambda value: isinstance(value, str) and least <= len(value) <= most and value.isprintable())


def path(least=0):
  """A folder or file of the file system: what reads and writes them knows no buckets, and only some of it knows ~."""
  return Rule('a path in the file system (a bucket has to be mounted, ~ to be written out) of characters that can be '
              'printed' + ', or nothing' * (least == 0), lambda value: isinstance(value, str) and is_path(value, least))


def name():
  return Rule('a name of small letters, digits and _', lambda value: isinstance(value, str) and NAME.fullmatch(value))


def is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)


def is_number(value):
  return is_whole(value) or isinstance(value, float) and math.isfinite(value)


def is_row(value, least, most, fits):
  return isinstance(value, tuple | list) and least <= len(value) <= most and all(map(fits, value))


def is_path(value, least):
  if len(value.strip()) < least or not value.isprintable() or '://' in value or value.startswith('~'):
    return False
  return len(value.encode()) < LONGEST_PATH and all(
    len(part.encode()) <= LONGEST_NAME for part in pathlib.PurePath(value).parts)
