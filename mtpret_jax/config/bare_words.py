"""Tuples on the command line without quotes: --config.tasks=lung,knee is --config.tasks="('lung', 'knee')"."""

import ast
import re
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from mtpret_jax.config.locate import load_config

FLAG = re.compile(r'--?config\.([\w.]+)=(.*)', re.DOTALL)
WORDS = re.compile(r'''\(?[^'"()\[\]{}]+\)?''')  # a word may have spaces, as the names of findings do


def quote_words(argv: Sequence[str]) -> list[str]:
  """The command line, with quotes around the words of tuples that have none. Only fields that are a tuple in the config
  are changed: in all others a comma is part of the value."""
  joined = list(join_values(argv))
  if not any(map(find_words, joined)):
    return list(argv)
  config = load_config(argv)
  return [quote_flag(argument, config) for argument in joined]


def join_values(argv: Sequence[str]) -> Iterator[str]:
  """`--config.FIELD VALUE` as `--config.FIELD=VALUE`."""
  is_joined = False
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    if is_joined:
      is_joined = False
    elif re.fullmatch(r'--?config\.[\w.]+', argument) and re.match('[^-]', following):
      yield f'{argument}={following}'
      is_joined = True
    else:
      yield argument


def quote_flag(argument: str, config: ConfigDict | None) -> str:
  field, words = find_words(argument) or ('', ())
  return f'--config.{field}={words}' if words and isinstance(find_value(config, field), tuple) else argument


def find_words(argument: str) -> tuple[str, tuple[str, ...]] | None:
  """(field, words) of a flag whose value is words with commas between them, or one in parentheses or with a space; None
  for any other, such as one word or numbers."""
  flag = FLAG.fullmatch(argument)
  # One word alone needs no quotes, and this spares loading the config for it.
  if not flag or not re.search('[,( ]', flag[2]) or not WORDS.fullmatch(flag[2]) or is_literal(flag[2]):
    return None
  words = tuple(filter(None, map(str.strip, flag[2].strip('()').split(','))))
  return None if all(map(is_literal, ' '.join(words).split())) else (flag[1], words)


def is_literal(value: str) -> bool:
  """Whether it is Python, such as (1, 2)."""
  try:
    ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return False
  return True


def find_value(config: ConfigDict | None, field: str) -> object:
  """The value of a field such as 'data.datasets'; None if there is none."""
  value: object = config
  for name in field.split('.'):
    value = value.get(name) if isinstance(value, ConfigDict) else None
  return value
