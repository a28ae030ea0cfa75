"""The trunk that a run starts from. `init` names the pretraining as the papers do; `init_from` is the file or run."""

import logging
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.models.torchvision_weights import import_trunk, trunk_shapes
from mtpret_jax.models.weight_files import check_file
from mtpret_jax.runtime import checkpoint

log = logging.getLogger(__name__)

SCRATCH = 'scratch'
# {name of a trunk after stage 2: (order, memory.anchor)}. `joint` and the ablations of one part are not the papers'.
STAGE_2_INITS = {'muscle--': ('sequential', 'none'), 'mtpret': ('cyclic_reshuffled', 'previous_visit'),
                 'joint': ('joint', 'none'), 'schedule_off': ('sequential', 'previous_visit'),
                 'memory_off': ('cyclic_reshuffled', 'none')}
INITS = (SCRATCH, 'imagenet', 'moco', 'md_moco', *STAGE_2_INITS, 'other')


def init_name_of(config: Mapping[str, Any]) -> str:
  """The name of the pretraining that a run with this config does: one of INITS."""
  if config['objective'] == 'moco':
    return 'moco' if len(config['data']['datasets']) == 1 else 'md_moco'
  names = {fields: name for name, fields in STAGE_2_INITS.items()}
  return names.get((config['order'], config['memory']['anchor']), 'other')


def check_init(config: ConfigDict, planned: Mapping[str, ConfigDict] = MappingProxyType({})) -> None:
  """Raises ConfigError if `init` and `init_from` contradict each other or the run in `init_from`. Weights are not read
  yet.

  Args:
    planned: {workdir: config} of runs that will have been made by then, such as the earlier stages of a recipe.
  """
  source = config.init_from
  if config.init == SCRATCH:
    if source:
      raise ConfigError(f'init={SCRATCH!r} does not use init_from={source!r}: set --config.init to one of '
                        f'{", ".join(INITS[1:])}, or leave init_from empty')
    return
  if config.init not in INITS:
    raise ConfigError(f'unknown init {show(config.init)}: choose one of {", ".join(INITS)}')
  if not source:
    raise ConfigError(f'init={config.init!r} needs --config.init_from: a .safetensors file of a torchvision ResNet, or '
                      f'the workdir of a run')
  if source in planned:
    check_init_name(source, config, planned[source])
    if planned[source].trunk != config.trunk:
      raise ConfigError(f'trunk={config.trunk!r}, but the run in {source} trains {planned[source].trunk!r}: set '
                        f'--config.trunk={planned[source].trunk}')
    return
  if not pathlib.Path(source).exists():
    raise ConfigError(f'init_from={source!r} does not exist: give the workdir of an earlier run, or a .safetensors '
                      f'file')
  try:
    if pathlib.Path(source).is_dir():
      check_init_name(source, config, saved.read_config(source))
    else:
      check_file(source)
  except ValueError as error:
    raise ConfigError(f'init_from={source!r}: {error}') from error


def check_init_name(workdir: str, config: ConfigDict, trained: Mapping[str, Any]) -> None:
  """Raises ConfigError if `config.init` does not match the pretraining of the run in `workdir`, whose config is
  `trained`."""
  actual = init_name_of(trained)
  if config.init not in (actual, 'other'):
    raise ConfigError(f'init={config.init!r}, but the run in {workdir} is {actual!r} (objective '
                      f'{trained["objective"]}): set --config.init={actual}, or choose another --config.init_from')


def read_initial_weights(config: ConfigDict, quiet: bool = False) -> tuple[dict, dict] | None:
  """(params, running statistics) of the trunk to start from; None for random ones. Logs where they
  come from, unless `quiet`.

  Raises ConfigError if the file or run cannot be used, or is not what `init` says.
  """
  check_init(config)
  source, level = config.init_from, logging.DEBUG if quiet else logging.INFO
  if config.init == SCRATCH:
    log.log(level, 'trunk: random weights')
    return None
  try:
    trunk = read_trunk(source, config) if pathlib.Path(source).is_dir() else import_trunk(source, config.trunk)
  except (OSError, ValueError, KeyError, TypeError) as error:  # Key- and TypeError: the state is not that of a stage
    raise ConfigError(f'init_from={source!r}: {as_line(error)}') from error
  count = sum(np.size(leaf) for leaf in jax.tree.leaves(trunk[0]))
  log.log(level, 'trunk: %s from %s, %d parameters; everything else is initialised randomly', config.init, source,
          count)
  return trunk


def read_trunk(workdir: str, config: ConfigDict) -> tuple[dict, dict]:
  """(params, running statistics) of the trunk in another run's newest checkpoint.

  A run of stage 2 has running statistics for each task. This averages those of the tasks that `config` also has, or
  of all tasks if it has none of them.
  """
  trained = saved.read_config(workdir)
  state, fingerprint = checkpoint.read_state(workdir)
  saved.check_unchanged(trained, fingerprint, workdir)
  params, stats = state['params']['trunk'], state['carry']['stats']['trunk']
  if trained['objective'] == 'multitask':
    chosen = [stats[name] for name in config.get('tasks', {}) if name in stats] or list(stats.values())
    stats = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *chosen)
  check_shapes(params, trunk_shapes(config.trunk)[0], trained['trunk'], config.trunk)
  return params, stats


def check_shapes(params: Any, wanted: Any, trained_trunk: str, own_trunk: str) -> None:
  """Raises ValueError with the first parameter whose shape differs between the two trees."""
  shapes, wanted_shapes = ({jax.tree_util.keystr(path, simple=True, separator='.'): np.shape(leaf)
                            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (params, wanted))
  for name in wanted_shapes | shapes:
    if shapes.get(name) != wanted_shapes.get(name):
      raise ValueError(f'trunk parameter {name} has shape {shapes.get(name)} in the run ({trained_trunk}) but must '
                       f'have {wanted_shapes.get(name)} for {own_trunk}: set --config.trunk={trained_trunk}')
