"""How a run's config differs from the nearest config file of this repository."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import continual, finetune, presets, pretrain
from configs.tasks import TASKS
from mtpret_jax.config.own_section import choose_sizes, list_sections
from mtpret_jax.data.fingerprint import flatten

HIDDEN = ('name', 'objective', 'data.datasets')  # the first two are the same in all variants; a run fills in the third
MISSING = '-'
FITTED = ('anchor_sizes', 'aspect_ratios', 'max_detections')  # of the head, taken from the training boxes


class Change(NamedTuple):
  """A field whose value is not the default; both as text."""

  field: str
  default: str
  value: str


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
  tasks = name_variants(config)
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
      yield from list_presets(f'configs/{file}.py:{name}', get_config(name), config)
    except (ValueError, KeyError, AttributeError, TypeError):  # there is no such variant of these tasks
      continue


def list_own(config: Mapping[str, Any]) -> list[str]:
  """The tasks of a run on datasets of your own."""
  return [name for name in config.get('tasks') or () if name not in TASKS]


def name_variants(config: Mapping[str, Any]) -> list[str]:
  """The tasks of a run as variants name them: `own`, `own2` and so on for datasets of your own."""
  own = {name: f'own{number or ""}' for name, number in zip(list_own(config), (0, *range(2, 10)), strict=False)}
  return [own.get(name, name) for name in config.get('tasks') or ()]


def list_presets(name: str, config: ConfigDict, run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(name, config) for each value of the field `preset`, if the config has it. `run`: the config of the run."""
  for section, task in zip(list_sections(config), list_own(run), strict=False):
    dataset = run['tasks'][task]['dataset']
    config[section].update(dataset=dataset, name='' if task == dataset else task)
  if 'preset' not in config:
    yield name, add_own(ConfigDict(config.to_dict()), run).to_dict()
    return
  for preset in presets.NAMES:
    config.preset = preset
    yield f'{name} --config.preset={preset}', add_own(presets.apply_preset(config), run).to_dict()


def add_own(config: ConfigDict, run: Mapping[str, Any]) -> ConfigDict:
  """Makes plain tasks of the sections for datasets of your own. What a run takes from the data, it takes from the
  config of the run."""
  for section in list_sections(config):
    own = config[section]
    del config[section]
    if not own.dataset:
      continue
    name, kind = own.name or own.dataset, run['tasks'][own.name or own.dataset]['kind']
    choose_sizes(own, kind)
    if kind == 'detection':
      fitted = run['tasks'][name]
      own.objects = fitted['objects']
      for field in FITTED:
        own.head[field] = fitted['head'][field]
    config.tasks[name] = own
  return config


def list_changes(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[Change]:
  own, before = flatten(config), flatten(default)
  names = [name for name in dict.fromkeys([*own, *before]) if name not in HIDDEN]
  return [Change(name, show_value(before.get(name, MISSING)), show_value(own.get(name, MISSING))) for name in names
          if own.get(name, MISSING) != before.get(name, MISSING)]


def show_value(value: Any) -> str:
  if isinstance(value, list):
    return ', '.join(map(show_value, value)) or '()'
  return "''" if value == '' else str(value)
