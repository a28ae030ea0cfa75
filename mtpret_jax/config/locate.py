"""Finds the bundled config files when the current folder has none: after `pip install .`, from any folder."""

import os
import pathlib
from collections.abc import Iterator, Sequence

BUNDLED = pathlib.Path(__file__).parents[2]  # the folder that holds mtpret_jax/ and configs/


def use_bundled_configs(argv: Sequence[str]) -> list[str]:
  """The command line, with the path of a bundled config file where the current folder has no such file.

  Applies to `--config=FILE`, `--config FILE` and both with `:VARIANT`. Files in the current folder come first.
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
  """`value`, FILE or FILE:VARIANT, or the bundled file of that name with the variant."""
  file, colon, variant = value.partition(':')
  bundled = BUNDLED / file
  if not file.startswith('configs/') or os.path.exists(file) or not os.path.isfile(bundled):
    return value
  return f'{bundled}{colon}{variant}'
