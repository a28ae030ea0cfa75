"""The sizes of runs on real archives, which the field `preset` chooses.

| preset | trunk | stage 1 | stages 2 and 3 | for |
|---|---|---|---|---|
| small | ResNet-18 | 64 px | 64 px, or 96 px with masks or boxes | two CPU cores |
| base | ResNet-18 | 128 px | 128 px, or 256 px with masks or boxes | a small GPU, or many CPU cores |
| paper | ResNet-50 | 224 px | 224 px, or 512 px with masks or boxes | accelerators |
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FieldReference

NAMES = ('small', 'base', 'paper')


class Choice(NamedTuple):
  """What a `FieldReference` computes when it is read: fn(its own value, *args)."""

  fn: Callable
  args: tuple


def choose(make: Callable[[str], ConfigDict], default: str) -> ConfigDict:
  """One config for all presets; `make` returns that of one preset.

  The field `preset` can be set on the command line, and all values follow it. A field that is set there itself keeps
  its value, whatever the preset. The field is in no saved config: a run replaces it by the values
  (`runtime/own_task.resolve`).
  """
  configs = {name: make(name) for name in NAMES}
  config = configs[default]
  paths = list(list_paths(config))
  config.preset = default  # size of the run: 'small', 'base' or 'paper'
  for *sections, key in paths:
    values = {name: find_section(other, sections)[key] for name, other in configs.items()}
    if any(value != values[default] for value in values.values()):
      choice = Choice(functools.partial(pick, values), (config.get_ref('preset'),))
      find_section(config, sections)[key] = FieldReference(values[default], op=choice)
  return config


def list_paths(config: ConfigDict, sections: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
  """The keys that lead to each value of a config."""
  for key, value in config.items(preserve_field_references=True):
    if isinstance(value, ConfigDict):
      yield from list_paths(value, (*sections, key))
    elif not isinstance(value, FieldReference):
      yield *sections, key


def find_section(config: ConfigDict, sections: list[str]) -> ConfigDict:
  return functools.reduce(lambda section, key: section[key], sections, config)


def pick(values: Mapping[str, Any], default: Any, preset: str) -> Any:
  """The value of a preset. An unknown preset is refused when the run starts."""
  return values.get(preset, default)


def apply_preset(config: ConfigDict) -> ConfigDict:
  """The config with the values of its preset, and without the field."""
  fields = config.to_dict()
  del fields['preset']
  plain = ConfigDict(fields)
  if 'tasks' in fields:
    plain.tasks = ConfigDict(fields['tasks'], sort_keys=False)  # the visits depend on their order
  return plain
