"""Which folders Orbax and TensorStore can write checkpoints to, and read them from.

`python -m benchmarks.paths` tries each character with the versions that are installed.
"""

import os
import re
from collections.abc import Callable

from mtpret_jax.config.errors import ConfigError, show
from tfds_builders.common.paths import advise, find_data_defect, locate, make_absolute

# What the absolute path of a folder of checkpoints must not have -> why.
UNREADABLE = {
  r'\\': 'TensorStore reads it as /',
  r'gs:(?=/|$)': 'Orbax reads a folder name that ends so as a bucket'}
# Orbax looks up its files by a pattern. With these it finds none, and the arrays are lost, or another folder's.
UNWRITABLE = UNREADABLE | dict.fromkeys((
  r'\*', r'\?', r'\[(?=!?+\]?+[^/\]]*\])'), 'Orbax reads it as a pattern')  # [ only where a ] closes it


def find_read_defect(folder: str) -> str:
  """Why Orbax cannot read checkpoints below a folder, as the end of a sentence that begins with the folder; '' if it
  can."""
  return find_data_defect(folder) or find_part(folder, UNREADABLE) or find_detour(folder)


def find_write_defect(folder: str) -> str:
  """As `find_read_defect`, for writing checkpoints."""
  return find_data_defect(folder) or find_part(folder, UNWRITABLE) or find_detour(folder)


def find_part(folder: str, patterns: dict[str, str]) -> str:
  place = str(make_absolute(folder))
  for pattern, why in patterns.items():
    if match := re.search(pattern, place):
      return f"{locate(folder, match[0])} '{match[0]}', and {why}: {advise(folder, match[0])}"
  return ''


def find_detour(folder: str) -> str:
  """TensorStore takes `link/..` for the folder that holds the link; all others, for the one above the link's target."""
  place = os.fspath(make_absolute(folder))
  real = os.path.realpath(place)
  if real == os.path.realpath(os.path.normpath(place)):
    return ''
  return f"has '..' after a symbolic link, which TensorStore follows to another folder: write it as {real}"


def check_path(field: str, folder: str, find_defect: Callable[[str], str]) -> None:
  """Raises ConfigError if the libraries cannot use the folder of a field. An empty field names none."""
  if folder and (defect := find_defect(folder)):
    raise ConfigError(f'{field}={show(folder)} {defect}, with --config.{field}=<folder>')
