"""How a run's config differs from the nearest config file of this repository."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import continual, finetune, presets, pretrain

HIDDEN = ('name', 'objective', 'data.datasets')  # the first two are the same in all variants; a run fills in the third
MISSING = '-'


class Change(NamedTuple):
  """A field whose value is not the default; both as text."""

  field: str
  default: str
  value: str


def flatten(fields: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested fields as {'outer.inner': value}, with lists in place of tuples."""
  flat: dict[str, Any] = {}
  for name, value in fields.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[f'{prefix}{name}'] = to_lists(value)
  return flat


def to_lists(value: Any) -> Any:
  return [to_lists(one) for one in value] if isinstance(value, tuple | list) else value


def find_changes(config: Mapping[str, Any]) -> tuple[str, list[Change]]:
  """('configs/FILE.py:VARIANT', the fields that differ from it), for the variant with the fewest differences;
  ('', []) for a config of no file here."""
  found = {variant: list_changes(config, default) for variant, default in list_defaults(config)}
  if not found:
    return '', []
  nearest = min(found, key=lambda variant: len(found[variant]))
  return nearest, found[nearest]


def list_defaults(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(name, config) of every variant that a config may have been made from."""
  tasks = list(config.get('tasks') or ())
  sizes = ('', *(f'{size},' for size in finetune.SIZES))
  lists = [f'{size}{",".join(tasks)}' for size in sizes]
  variants = {'pretrain': (pretrain.get_config, list(pretrain.VARIANTS)),
              'continual': (continual.get_config, [*continual.VARIANTS, *lists]),
              'finetune': (finetune.get_config, [f'{size}{task}' for task in tasks for size in sizes])}
  file = config.get('name', '')
  if file not in variants:
    return
  get_config, names = variants[file]
  for name in names:
    try:
      yield from list_presets(f'configs/{file}.py:{name}', get_config(name))
    except (ValueError, KeyError, AttributeError, TypeError):  # a task of your own has no variant
      continue


def list_presets(name: str, config: ConfigDict) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(name, config) for each value of the field `preset`, if the config has it."""
  if 'preset' not in config:
    yield name, config.to_dict()
    return
  for preset in presets.NAMES:
    config.preset = preset
    yield f'{name} --config.preset={preset}', presets.apply_preset(config).to_dict()


def list_changes(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[Change]:
  own, before = flatten(config), flatten(default)
  names = [name for name in dict.fromkeys([*own, *before]) if name not in HIDDEN]
  return [Change(name, show_value(before.get(name, MISSING)), show_value(own.get(name, MISSING))) for name in names
          if own.get(name, MISSING) != before.get(name, MISSING)]


def show_value(value: Any) -> str:
  if isinstance(value, list):
    return ', '.join(map(show_value, value)) or '()'
  return "''" if value == '' else str(value)
