"""Where a run's trunk comes from: `init` names the initialisation as the papers do, `init_from` is the file or run."""

import logging
import pathlib

import jax
import numpy as np

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.models.torchvision_weights import check_kind, import_trunk, trunk_shapes
from mtpret_jax.runtime import checkpoint

log = logging.getLogger(__name__)

SCRATCH = 'scratch'


def init_name_of(config):
  """What the papers call a trunk that the run with this config trained."""
  if config['objective'] == 'moco':
    return 'moco' if len(config['data']['datasets']) == 1 else 'md_moco'
  if config['memory']['anchor'] == 'none' and config['order'] == 'sequential':
    return 'muscle--'
  whole = config['memory']['anchor'] == 'previous_visit' and config['order'] == 'cyclic_reshuffled'
  return 'mtpret' if whole else 'other'


INITS = (SCRATCH, 'imagenet', 'moco', 'md_moco', 'muscle--', 'mtpret', 'other')


def check_init(config):
  """Raises ConfigError where `init` and `init_from` cannot be; what is in the file or checkpoint is not yet read."""
  source = config.init_from
  if config.init == SCRATCH:
    if source:
      raise ConfigError(f'init={SCRATCH!r} takes nothing from init_from={source!r}: set --config.init to one of '
                        f'{", ".join(INITS[1:])}, or leave init_from empty')
    return
  if config.init not in INITS:
    raise ConfigError(f'unknown init {show(config.init)}; have {", ".join(INITS)}')
  if not source:
    raise ConfigError(f'init={config.init!r} needs --config.init_from=<a .safetensors file of a torchvision ResNet, or '
                      f'the workdir of a run>')
  if not pathlib.Path(source).exists():
    raise ConfigError(f'init_from={source!r} is not there: give the workdir of a run that has been made, or a '
                      f'.safetensors file')
  try:
    if pathlib.Path(source).is_dir():
      check_origin(source, config, saved.read_config(source))
    else:
      check_kind(source)
  except ValueError as error:
    raise ConfigError(f'init_from={source!r}: {error}') from error


def check_origin(workdir, config, trained):
  origin = init_name_of(trained)
  if config.init not in (origin, 'other'):
    raise ConfigError(f'init={config.init!r}, but the run in {workdir} trained {origin!r} (objective '
                      f'{trained["objective"]}): set --config.init={origin}, or another init_from')


def read_initial_weights(config, quiet=False):
  """The (params, stats) of the trunk to start from, or None for random ones; which, is logged unless `quiet`. Raises
  ConfigError where the file or run cannot be used, or is not what `init` says."""
  check_init(config)
  source, tell = config.init_from, log.debug if quiet else log.info
  if config.init == SCRATCH:
    tell('trunk: random weights')
    return None
  try:
    trunk = read_run(source, config) if pathlib.Path(source).is_dir() else import_trunk(source, config.trunk)
  except (OSError, ValueError, KeyError, TypeError) as error:  # the last two: a state that is no stage's
    raise ConfigError(f'init_from={source!r}: {as_line(error)}') from error
  count = sum(np.size(leaf) for leaf in jax.tree.leaves(trunk[0]))
  tell('trunk: %s from %s, %d parameters; everything else is fresh', config.init, source, count)
  return trunk


def list_pretraining_datasets(config, later=()):
  """The datasets that the trunk saw before this run, in the run of `init_from` and in those that it came from; what is
  in a weights file cannot be known. Raises ConfigError where that cannot be read, or goes round: `later` are the runs
  that are known to come from this one."""
  source = pathlib.Path(config['init_from'])
  if config['init'] == SCRATCH or not (source / saved.FILE).exists():  # what is no run, `check_init` refuses
    return []
  if source.resolve() in later:
    raise ConfigError(f'the run in {source} says that it came from itself: its {saved.FILE}, or that of a run it came '
                      f'from, is damaged')
  before = saved.read_config(source, saved.ORIGIN)
  return list(dict.fromkeys([*list_pretraining_datasets(before, (*later, source.resolve())), *before['data']['datasets']]))


def read_run(workdir, config):
  """The trunk of another run's newest checkpoint. Of several tasks' running statistics it has those of the config's own
  task where there are such, else their mean."""
  trained = saved.read_config(workdir)
  state, mark = checkpoint.read_state(workdir)
  saved.check_unchanged(trained, mark, workdir)
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
