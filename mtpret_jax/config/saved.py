"""What an earlier run says of itself: config.json in its workdir. People edit it and disks damage it, so it is checked
before it is believed; with each checkpoint the run saved what its result depends on, under a SHA-256."""

import dataclasses
import json
import pathlib

from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.config.rules import row, text
from mtpret_jax.config.schema import MOCO, MULTITASK, compare
from mtpret_jax.data.pipeline import INCIDENTAL, flatten

FILE = 'config.json'
LARGEST = 10**7  # bytes
NAMES = row(text(1, 300), 0, 1000)
NEEDED = {'data': {'datasets': dataclasses.replace(  # by all who read it; each once, as a run writes them
  NAMES, fits=lambda value: NAMES.fits(value) and len(set(value)) == len(value))}}
ORIGIN = {'init': text(), 'init_from': text(most=4000)}
PLACES = {'workdir': text(most=4000), 'data': {'dir': text(most=4000), 'archives': text(most=4000)}}
OBJECTIVES = {'moco': MOCO, 'multitask': MULTITASK}


def read_config(workdir, also=None):
  """The config, a dict, of the run in `workdir`; raises ConfigError where there is none, or where what is needed of any
  run, or of the rules of `also`, is not in it."""
  path = pathlib.Path(workdir, FILE)
  if not path.is_file():
    raise ConfigError(f'{str(workdir)!r} is no workdir of a run: {path} is not there, or no file')
  if path.stat().st_size > LARGEST:
    raise ConfigError(f'{path} is damaged: no config has {path.stat().st_size} bytes')
  try:
    told = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged ({as_line(error)}): {REMEDY}') from error
  config = told.get('config') if isinstance(told, dict) else None
  if not isinstance(config, dict) or config.get('objective') not in tuple(OBJECTIVES):
    raise ConfigError(f'{path} is damaged, it holds no config of a stage: {REMEDY}')
  rules = {key: MULTITASK[key] for key in ('order', 'memory')} if config['objective'] == 'multitask' else {}
  mistake = compare(config, NEEDED | rules, True, '') or compare(config, also or {}, True, '')
  if mistake:
    field, value, _ = mistake
    raise ConfigError(f'{path} is damaged, {field} is {show(value)}: {REMEDY}')
  return config


REMEDY = 'put back what the run wrote, or name another run'


def check_unchanged(config, mark, workdir):
  """Raises ConfigError where the config of the run in `workdir` is not the one that its checkpoint was saved with;
  `mark` is what `pipeline.fingerprint` said then."""
  datasets = {f'data.{name}' for name in config['data']['datasets']}
  now = {field: value for field, value in flatten(config).items() if not field.startswith(INCIDENTAL)}
  changed = [field for field in sorted((now | mark).keys() - datasets, key=str) if now.get(field) != mark.get(field)]
  changed += sorted(datasets - mark.keys())
  if changed:
    raise ConfigError(f'{pathlib.Path(workdir, FILE)} is not the config of the checkpoint beside it, they differ in '
                      f'{", ".join(map(show, changed[:3]))}: {REMEDY}')
