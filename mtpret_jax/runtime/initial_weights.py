"""The trunk that a run starts from. `init` names the pretraining as the papers do; `init_from` is the file or run."""

import logging
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, as_line, show
from mtpret_jax.models import weight_files, weight_names
from mtpret_jax.models.torchvision_weights import Trees, import_head, import_trunk, trunk_shapes
from mtpret_jax.models.trunk import make_trunk
from mtpret_jax.models.weight_files import FORMATS, check_file
from mtpret_jax.runtime import checkpoint, weights_file
from mtpret_jax.tasks.fitted import FittedTask
from tfds_builders.common.suggest import suggest

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
      name = find_init_name(source, planned)
      choice = f'={name}' if name else f' to one of {", ".join(INITS[1:])}'
      raise ConfigError(f'init={SCRATCH!r} does not use init_from={source!r}: set --config.init{choice}, or leave '
                        f'init_from empty')
    return
  if config.init not in INITS:
    raise ConfigError(f'unknown init {show(config.init)}: choose one of {", ".join(INITS)}'
                      f'{suggest(config.init, INITS)}')
  if not source:
    raise ConfigError(f'init={config.init!r} needs --config.init_from: the workdir of a run, or the weights of a '
                      f'torchvision ResNet ({FORMATS})')
  if source in planned:
    check_init_name(source, config, planned[source])
    if planned[source].trunk != config.trunk:
      raise ConfigError(f'trunk={config.trunk!r}, but the run in {source} trains {planned[source].trunk!r}: set '
                        f'--config.trunk={planned[source].trunk}')
    return
  if not pathlib.Path(source).exists():
    raise ConfigError(f'init_from={source!r} does not exist: give the workdir of an earlier run, or {FORMATS}')
  try:
    if pathlib.Path(source).is_dir():
      check_init_name(source, config, saved.read_config(source))
    else:
      check_file(source)
  except ValueError as error:
    raise ConfigError(f'init_from={source!r}: {error}') from error


def find_init_name(source: str, planned: Mapping[str, ConfigDict]) -> str:
  """The name of the pretraining of the run in `source`; '' if there is no such run."""
  try:
    return init_name_of(planned[source] if source in planned else saved.read_config(source))
  except (ValueError, OSError):
    return ''


def check_init_name(workdir: str, config: ConfigDict, trained: Mapping[str, Any]) -> None:
  """Raises ConfigError if `config.init` does not match the pretraining of the run in `workdir`, whose config is
  `trained`."""
  actual = init_name_of(trained)
  if config.init not in (actual, 'other'):
    raise ConfigError(f'init={config.init!r}, but the run in {workdir} is {actual!r} (objective '
                      f'{trained["objective"]}): set --config.init={actual}, or choose another --config.init_from')


def read_initial_weights(config: ConfigDict, tasks: Mapping[str, FittedTask] = MappingProxyType({}),
                         quiet: bool = False) -> dict[str, Trees] | None:
  """{part: (params, running statistics)} to start from; None for random ones. Logs where they come from, unless
  `quiet`. The trunk is always there. A task's head is there if the file holds torchvision's head for that kind of task.

  Raises ConfigError if the file or run cannot be used, or is not what `init` says.
  """
  check_init(config)
  source, level = config.init_from, logging.DEBUG if quiet else logging.INFO
  if config.init == SCRATCH:
    log.log(level, 'trunk: random weights')
    return None
  try:
    if pathlib.Path(source).is_dir():
      weights, file = {'trunk': read_trunk(source, config)}, None
    else:
      file = weight_files.read(source)
      weights = {'trunk': import_trunk(file, config.trunk)}
  except (OSError, ValueError, KeyError, TypeError) as error:  # Key- and TypeError: the state is not that of a stage
    raise ConfigError(f'init_from={source!r}: {as_line(error)}') from error
  log.log(level, 'trunk: %s from %s, %s parameters', config.init, source, f'{count_parameters(weights["trunk"]):,}')
  heads = {name: None if file is None else read_head(file, name, task, config, level) for name, task in tasks.items()}
  weights |= {name: head for name, head in heads.items() if head is not None}
  log.log(level, 'everything else is initialised randomly')
  return weights


def read_head(file: Mapping[str, np.ndarray], name: str, task: FittedTask, config: ConfigDict,
              level: int = logging.INFO) -> Trees | None:
  """(params, running statistics) of a task's head from a state dict of torchvision, without the last layers if the file
  has other classes; None if the file has no head that fits. `fc` is never taken, because its classes are others."""
  weights = weight_names.select_head(file, task.kind) if task.kind in ('segmentation', 'detection') else {}
  if not weights:
    return None
  try:
    head, others = import_head(weights, task.kind, *shape_head(task, config.trunk))
  except ValueError as error:
    log.warning('head of %s: not taken from %s, because %s; tasks.%s.head says how large it is', name, config.init_from,
                as_line(error), name)
    return None
  random = f'; random weights, because its classes or anchors are others: {", ".join(others)}' if others else ''
  log.log(level, 'head of %s: from %s, %s parameters%s', name, config.init_from, f'{count_parameters(head):,}',
          random)
  return head


def shape_head(task: FittedTask, trunk: str) -> Trees:
  """(params, running statistics) of a task's head as shapes; computes nothing."""
  head = nnx.eval_shape(lambda: task.make_model().make_head(make_trunk(trunk, rngs=nnx.Rngs(0)), nnx.Rngs(0)))
  return nnx.to_pure_dict(nnx.state(head, nnx.Param)), nnx.to_pure_dict(nnx.state(head, nnx.BatchStat))


def count_parameters(trees: Trees) -> int:
  return sum(np.size(leaf) for leaf in jax.tree.leaves(trees[0]))


def read_trunk(workdir: str, config: ConfigDict) -> tuple[dict, dict]:
  """(params, running statistics) of the trunk in another run's newest checkpoint, or in an exported run.

  A run of stage 2 has running statistics for each task. This averages those of the tasks that `config` also has, or
  of all tasks if it has none of them.
  """
  trained = saved.read_config(workdir)
  if pathlib.Path(workdir, weights_file.FILE).is_file():
    state, _ = weights_file.read_weights(workdir)
  else:
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
