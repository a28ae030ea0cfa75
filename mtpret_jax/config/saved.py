"""Reads `config.json`, the config of an earlier run, from its workdir.

People edit this file and disks damage it, so it is checked before it is used. Each checkpoint holds a fingerprint of
the config, protected by checksums; `check_unchanged` compares the file with it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config import extension
from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.config.rules import choice, number, row, text, whole
from mtpret_jax.config.schema import MULTITASK, SEED, Schema, compare
from mtpret_jax.data.fingerprint import flatten, is_incidental
from mtpret_jax.data.sources import SPLIT_RULES

FILE = 'config.json'
MAX_BYTES = 10**7
REMEDY = 'restore the file from a backup, or name another run'

NAMES = row(text(1, 300), 0, 1000)
# Every reader uses the dataset names. A run never writes one twice, so a duplicate means damage.
NEEDED: Schema = {'data': {'datasets': dataclasses.replace(
  NAMES, fits=lambda value: NAMES.fits(value) and len(set(value)) == len(value))}}
# Fields that only some stages have.
OPTIONAL: Schema = {'data': {'whole': NAMES, 'fraction': number(0.0, 1.0), 'fraction_seed': whole(0, SEED)}}
# Schemas of further fields that some readers need.
LINEAGE: Schema = {'init': text(), 'init_from': text(longest=4000), 'data': {'split': choice(SPLIT_RULES)}}
EVALUATION: Schema = {**LINEAGE, 'workdir': text(longest=4000), 'data': {
  'split': choice(SPLIT_RULES), 'dir': text(longest=4000), 'archives': text(longest=4000)}}
# A tuple, because `in` compares its items: a damaged value may be a list, which `in` on a set or dict cannot hash.
OBJECTIVES = ('moco', 'multitask')


def read_config(workdir: str | pathlib.Path, also: Schema | None = None) -> dict[str, Any]:
  """The config of the run in `workdir`, as a dict.

  Args:
    also: the schema of further fields to check, besides those that every reader needs.

  Raises:
    ConfigError: there is no config, or a field that is needed is missing or wrong.
  """
  path = pathlib.Path(workdir, FILE)
  if not path.is_file():
    raise ConfigError(f'{str(workdir)!r} is not the workdir of a run: there is no file {path}')
  if path.stat().st_size > MAX_BYTES:
    raise ConfigError(f'{path} is damaged: it has {path.stat().st_size} bytes, too many for a config; {REMEDY}')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged ({as_line(error)}): {REMEDY}') from error
  config = content.get('config') if isinstance(content, dict) else None
  if not isinstance(config, dict) or config.get('objective') not in OBJECTIVES:
    raise ConfigError(f'{path} is damaged: it does not hold the config of a stage; {REMEDY}')
  schema = {key: MULTITASK[key] for key in ('order', 'memory')} if config['objective'] == 'multitask' else {}
  mistake = (compare(config, {**NEEDED, **schema}, True, '') or compare(config, OPTIONAL, False, '')
             or compare(config, also or {}, True, ''))
  if mistake:
    field, value, _ = mistake
    raise ConfigError(f'{path} is damaged: {field} is {show(value)}; {REMEDY}')
  return config


def make_config(fields: Mapping[str, Any]) -> ConfigDict:
  """A saved config as a ConfigDict. It keeps the order of the tasks, which `ConfigDict(fields)` would sort: the visits
  depend on it."""
  config = ConfigDict(dict(fields))
  if isinstance(fields.get('tasks'), dict):
    config.tasks = ConfigDict(fields['tasks'], sort_keys=False)
  return config


def check_unchanged(config: Mapping[str, Any], fingerprint: Mapping[str, Any], workdir: str | pathlib.Path) -> None:
  """Raises ConfigError unless `config`, of the run in `workdir`, is what its checkpoint was saved with. `fingerprint`
  is what `make_fingerprint` returned then."""
  datasets = {f'data.{name}' for name in config['data']['datasets']}
  fields = {field: value for field, value in flatten(config).items() if not is_incidental(field)}
  # A run that was extended saves its config when it starts, and its fingerprint with the next checkpoint.
  grown = extension.find_growth(fingerprint, fields) if config.get('extend') else {}
  changed = [field for field in sorted({*fields, *fingerprint} - datasets - grown.keys(), key=str)
             if fields.get(field) != fingerprint.get(field)]
  changed += sorted(datasets - fingerprint.keys())
  if changed:
    raise ConfigError(f'{pathlib.Path(workdir, FILE)} is not the config of the checkpoint beside it: they differ in '
                      f'{", ".join(map(show, changed[:3]))}; {REMEDY}')
