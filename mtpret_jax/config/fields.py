"""The fields of a config as dotted names, such as `optimiser.learning_rate`."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict


def flatten(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of every field that can be set."""
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from flatten(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def list_fields(config: ConfigDict) -> list[str]:
  """The dotted names of a config's fields and of its sections."""
  fields = [name for name, _ in flatten(config)]
  sections = {name.rsplit('.', depth)[0] for name in fields for depth in range(1, name.count('.') + 1)}
  return [*fields, *sorted(sections)]
