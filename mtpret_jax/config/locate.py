"""Finds the config file that the command line names: the bundled one if the current folder has none.

An installed package (`pip install .`) then works from any folder.
"""

import importlib.util
import os
import pathlib
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

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


def load_config(argv: Sequence[str]) -> ConfigDict | None:
  """The config that the command line names, without the fields that it sets; None if it cannot be loaded."""
  arguments = use_bundled_configs(argv)
  named = [argument.partition('=')[2] or following for argument, following in zip(arguments, [*arguments[1:], ''],
                                                                                strict=True)
           if argument.partition('=')[0] in ('--config', '-config')]
  if not named:
    return None
  path, _, variant = named[-1].partition(':')
  try:
    spec = importlib.util.spec_from_file_location('named_config', path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.get_config(*filter(None, [variant]))
  except Exception:  # a config file is a program and may raise anything; the first error is the one to report
    return None
