"""Finds the bundled config files if the current folder has none.

An installed package (`pip install .`) then works from any folder.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

BUNDLED = pathlib.Path(__file__).parents[2]  # the folder that holds mtpret_jax/ and configs/


def use_bundled_configs(argv: Sequence[str]) -> list[str]:
  """Replaces a config file that the current folder does not have by the path of the bundled one; returns the command
  line.

  Handles `--config=FILE` and `--config FILE`, with or without `:VARIANT`. A file in the current folder wins.
  """
  return list(rewrite(argv))


def rewrite(argv: Sequence[str]) -> Iterator[str]:
  is_value = False
  for argument in argv:
    flag, equals, value = argument.partition('=')
    if is_value:
      yield locate(argument)
    elif flag in ('--config', '-config') and equals:
      yield f'{flag}={locate(value)}'
    else:
      yield argument
    is_value = argument in ('--config', '-config')


def locate(value: str) -> str:
  """`value` (FILE or FILE:VARIANT) itself, or the same with FILE replaced by the bundled file of that name."""
  file, colon, variant = value.partition(':')
  bundled = BUNDLED / file
  if not file.startswith('configs/') or os.path.exists(file) or not os.path.isfile(bundled):
    return value
  return f'{bundled}{colon}{variant}'
