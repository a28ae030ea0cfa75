"""Where a run's trunk comes from: `init` names the initialisation as the papers do, `init_from` is the file or run."""

import json
import logging
import pathlib

import jax
import numpy as np
from safetensors import SafetensorError

from mtpret_jax import checkpoint
from mtpret_jax.check import ConfigError
from mtpret_jax.weights import import_trunk, trunk_shapes

log = logging.getLogger(__name__)

SCRATCH = 'scratch'


def came_from(config):
  """What the papers call a trunk that the run with this config trained."""
  if config['objective'] == 'contrast':
    return 'moco' if len(config['data']['datasets']) == 1 else 'md_moco'
  if config['memory']['anchor'] == 'none' and config['order'] == 'sequential':
    return 'muscle--'
  whole = config['memory']['anchor'] == 'previous_visit' and config['order'] == 'cyclic_reshuffled'
  return 'mtpret' if whole else 'other'


INITS = (SCRATCH, 'imagenet', 'moco', 'md_moco', 'muscle--', 'mtpret', 'other')


def read_start(config):
  """The (params, stats) of the trunk to start from, or None for random ones. Raises ConfigError where the file or run
  cannot be used, or is not what `init` says."""
  source = config.init_from
  if config.init == SCRATCH:
    if source:
      raise ConfigError(f'init={SCRATCH!r} takes nothing from init_from={source!r}: set --config.init to one of '
                        f'{", ".join(INITS[1:])}, or leave init_from empty')
    log.info('trunk: random weights')
    return None
  if config.init not in INITS:
    raise ConfigError(f'unknown init {config.init!r}; have {", ".join(INITS)}')
  if not source:
    raise ConfigError(f'init={config.init!r} needs --config.init_from=<a .safetensors file of a torchvision ResNet, or '
                      f'the workdir of a run>')
  if not pathlib.Path(source).exists():
    raise ConfigError(f'init_from={source!r} is not there: give the workdir of a run that has been made, or a '
                      f'.safetensors file')
  try:
    trunk = read_run(source, config) if pathlib.Path(source).is_dir() else import_trunk(source, config.trunk)
  except (OSError, ValueError, SafetensorError) as error:
    raise ConfigError(f'init_from={source!r}: {error}') from error
  count = sum(np.size(leaf) for leaf in jax.tree.leaves(trunk[0]))
  log.info('trunk: %s from %s, %d parameters; everything else is fresh', config.init, source, count)
  return trunk


def list_lineage(config):
  """The datasets that the trunk saw before this run, in the run of `init_from` and in those that it came from; what is
  in a weights file cannot be known."""
  path = pathlib.Path(config['init_from'], 'config.json')
  if config['init'] == SCRATCH or not path.exists():  # what is no run, `read_start` refuses
    return []
  before = json.loads(path.read_text())['config']
  return list(dict.fromkeys([*list_lineage(before), *before['data']['datasets']]))


def read_run(workdir, config):
  """The trunk of another run's newest checkpoint. Of several tasks' running statistics it has those of the config's own
  task where there are such, else their mean."""
  path = pathlib.Path(workdir, 'config.json')
  trained = json.loads(path.read_text())['config']
  origin = came_from(trained)
  if config.init not in (origin, 'other'):
    raise ConfigError(f'init={config.init!r}, but the run in {workdir} trained {origin!r} (objective '
                      f'{trained["objective"]}): set --config.init={origin}, or another init_from')
  state, _ = checkpoint.read_state(workdir)
  params, stats = state['params']['trunk'], state['carry']['stats']['trunk']
  if trained['objective'] == 'multitask':
    own = [stats[name] for name in config.get('tasks', {}) if name in stats] or list(stats.values())
    stats = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *own)
  check_shapes(params, trunk_shapes(config.trunk)[0], trained['trunk'], config.trunk)
  return params, stats


def check_shapes(params, wanted, there, here):
  """Raises ValueError that names the first parameter that does not fit."""
  flat, flat_wanted = ({jax.tree_util.keystr(path, simple=True, separator='.'): np.shape(leaf)
                        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (params, wanted))
  for name in flat_wanted | flat:
    if flat.get(name) != flat_wanted.get(name):
      raise ValueError(f'trunk parameter {name} has shape {flat.get(name)} in the run ({there}), must have '
                       f'{flat_wanted.get(name)} ({here}): set --config.trunk={there}')
