"""Changed copies of configs and files."""

import pathlib
from typing import Any

from ml_collections import ConfigDict


def change(config: ConfigDict, **fields: Any) -> ConfigDict:
  """A copy of `config`, unlocked or not, with other values at these dotted names."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  return config


def flip(path: pathlib.Path, bit: int) -> None:
  """Flips one bit of a file, counted from its start."""
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)
