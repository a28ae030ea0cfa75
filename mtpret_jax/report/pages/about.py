"""What was run: data, start, network, versions and config."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.report.blocks import Block, Cell, Facts, Table, Words
from mtpret_jax.report.pages.config_changes import find_changes, show_value
from mtpret_jax.report.run_files import CONFIG, RunFiles
from mtpret_jax.report.words import describe_percent

PHANTOM_WORDS = 'phantoms: computed images, not of patients'
STARTS = {'scratch': 'random weights', 'imagenet': 'ImageNet weights'}


def uses_phantoms(config: Mapping[str, Any]) -> bool:
  """Whether a run's images are phantoms: it was given no archives."""
  return bool(config) and not (config.get('data') or {}).get('archives')


def list_facts(run: RunFiles) -> list[tuple[str, Cell]]:
  """What every stage has."""
  config = run.config
  if not config:
    return []
  data = config['data']
  where = PHANTOM_WORDS if uses_phantoms(config) else f'archives in the folder {data["archives"]}'
  facts = [('Data', where), ('Datasets', ', '.join(data['datasets']) or '-'),
           ('Splits', {'patient': 'by patient: no patient is in two splits'}.get(data['split'], data['split'])),
           ('Trunk', config['trunk']), ('Started from', describe_start(config))]
  if data.get('fraction', 1) != 1:
    facts.append(('Labels', f'{describe_percent(data["fraction"])} of the training patients'))
  return [*facts, ('Seed', str(config['seed']))]


def describe_start(config: Mapping[str, Any]) -> str:
  """Where the weights of the trunk come from."""
  return ' from '.join(filter(None, [STARTS.get(config['init'], config['init']), config['init_from']]))


def list_versions(run: RunFiles) -> dict[str, str]:
  """The libraries and the devices of a run, from whichever of its files has them."""
  for name in (CONFIG, 'scores.json', 'results.json'):
    versions = run.read_json(name).get('versions')
    if isinstance(versions, dict):
      return versions
  return {}


def make_config_blocks(run: RunFiles) -> Iterator[Block]:
  """The config with what differs from the default first, and the versions."""
  if run.config:
    nearest, changes = find_changes(run.config)
    if nearest and changes:
      yield Table(('field', 'default', 'this run'), changes, f'What differs from --config={nearest}',
                  text_columns=(0, 1, 2))
    elif nearest:
      yield Words([f'The config is --config={nearest}, unchanged.'])
    yield Table(('field', 'value'), [(field, show_value(value)) for field, value in flatten(run.config).items()],
                'The whole config', text_columns=(0, 1), folded=True)
  versions = list_versions(run)
  if versions:
    yield Table(('', 'version'), [(name, version if isinstance(version, str) else json.dumps(version))
                                  for name, version in versions.items()],
                'Versions', text_columns=(0, 1), folded=True)


def make_facts(run: RunFiles, *more: tuple[str, Cell]) -> Facts:
  return Facts([*list_facts(run), *more])
