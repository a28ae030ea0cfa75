"""Errors that the user can correct, and how messages show values."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from tfds_builders.common.plain_text import shorten

MAX_LINE = 500  # characters
MAX_VALUE = 80  # characters of a value in a message


class ConfigError(ValueError):
  """A mistake in the command or its config. The command line prints it as one line, without a traceback.

  Attributes:
    remedy: {field: value} that corrects it; {} if none is known.
  """

  def __init__(self, message: str, remedy: Mapping[str, Any] | None = None, alternative: str = '') -> None:
    """`remedy` becomes the advice 'try --config.FIELD=VALUE'; `alternative` is text that follows it."""
    advice = f': try {format_flags(remedy)}{alternative}' if remedy else ''
    super().__init__(f'{message}{advice}')
    self.remedy = dict(remedy or {})


def format_flags(fields: Mapping[str, Any]) -> str:
  return ' '.join(f'--config.{field}={quote(value)}' for field, value in fields.items())


def quote(value: object) -> str:
  """A value as a shell takes it: a tuple, whose repr has single quotes, goes into double ones."""
  return f'"{value}"' if isinstance(value, tuple) else str(value)


def as_line(text: object) -> str:
  """Any text as one printable line of limited length."""
  line = ' '.join(str(text).split())
  line = ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in line)
  return shorten(line, MAX_LINE)


def show(value: object) -> str:
  """The `repr` of a value on one line, shortened if it is long."""
  words = ' '.join(repr(value).split())
  return shorten(words, MAX_VALUE)


def name_stage(name: str, error: Exception, shared: Collection[str] = ()) -> ConfigError:
  """Turns the error of a stage into one of its recipe: names the stage, and adds `stages.NAME.` to its fields, except
  those that the recipe has for all stages."""
  message = add_stage(name, f'stage {name}: {error}')
  for field in shared:
    message = message.replace(f'config.stages.{name}.{field}', f'config.{field}')
  return ConfigError(message)


def add_stage(name: str, message: str) -> str:
  """Adds `stages.NAME.` to the fields in the flags of a message."""
  return re.sub(r'\bconfig\.(?!json|py)(?=\w)', f'config.stages.{name}.', message)
