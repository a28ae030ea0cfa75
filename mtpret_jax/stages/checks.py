"""Checks of a config of any kind, before data is prepared and with the number of devices at hand."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
from ml_collections import ConfigDict

from mtpret_jax.config.errors import name_stage
from mtpret_jax.config.paths import check_folder, check_workdir
from mtpret_jax.config.validate import check_config, check_devices, check_fields, check_objective
from mtpret_jax.runtime import lineage, own_task, prepare_data
from mtpret_jax.runtime.initial_weights import check_init
from mtpret_jax.runtime.shared_memory import check_shared_memory
from mtpret_jax.stages.table import cells

# px. On smaller views one device that uses all cores is faster than a device per core (docs/performance.md).
MIN_VIEW_ON_CORES = 96
SHARED = ('data.archives', 'data.dir', 'data.split', 'workdir')  # fields that a table has for all of its stages


def check_run(config: ConfigDict) -> None:
  """Raises one of `prepare_data.USER_ERRORS` for every mistake that can be found before data is prepared. A recipe is
  checked with all its stages, so that a mistake in the last one is not found hours later."""
  objective = check_objective(config)
  if objective == 'evaluate':
    check_fields(config)
  elif objective == 'table':
    check_cells(config)
  elif objective != 'recipe':
    check_stage(config)
  else:
    check_fields(config)
    check_workdir(config.workdir)
    planned: dict[str, ConfigDict] = {}
    for name, stage in config.stages.items():
      resolved = stage.copy_and_resolve_references()
      try:
        check_stage(resolved, planned)
      except prepare_data.USER_ERRORS as error:
        raise name_stage(name, error) from error
      planned[resolved.workdir] = resolved


def check_cells(config: ConfigDict) -> None:
  """Checks a table: every pretraining run, and one cell of each task and initialisation. The others differ from it in
  their share of the labels and their seed only."""
  check_fields(config)
  check_workdir(config.workdir)
  check_folder('data.dir', config.data.dir)
  cells.check_table(config)
  planned: dict[str, ConfigDict] = {}
  for stage in cells.make_pretraining(config).values():
    try:
      check_stage(stage, planned)
    except prepare_data.USER_ERRORS as error:
      raise name_stage('pretrain' if stage.objective == 'moco' else 'continual', error, SHARED) from error
    planned[stage.workdir] = stage
  for cell in {(cell.task, cell.init): cell for cell in cells.make_cells(config)}.values():
    try:
      check_stage(cell.config, planned)
    except prepare_data.USER_ERRORS as error:
      raise name_stage(f'finetune.{cell.task}', error, SHARED) from error


def check_stage(config: ConfigDict, planned: Mapping[str, ConfigDict] = MappingProxyType({})) -> None:
  """Checks one stage. `planned`: {workdir: config} of the recipe's earlier stages; `init_from` may name such a workdir
  although it is still empty."""
  devices, processes = jax.device_count(), jax.process_count()
  check_fields(config, devices, processes)
  check_workdir(config.workdir)
  check_folder('data.dir', config.data.dir)
  prepare_data.choose_datasets(config)
  check_devices(config, devices, processes)
  check_shared_memory(config, processes)
  prepare_data.check_annotations(config)
  check_init(config, planned)
  lineage.check_lineage(config, lineage.trace_lineage(config, planned))


def can_use_devices(config: ConfigDict, devices: int) -> bool:
  """Whether `devices` cores should each be a device: the batches of every stage divide into whole batch-norm groups on
  them, and some views are large enough. False if nothing is trained, or if the config is invalid; `check_run` reports
  the latter."""
  try:
    config = own_task.resolve(config, quiet=True)
    check_fields(config)
    if config.objective == 'evaluate':
      return False
    stages = list_stages(config)
    for stage in stages:
      check_config(stage.copy_and_resolve_references(), devices=devices, processes=1)
  except prepare_data.USER_ERRORS:
    return False
  return max(map(find_view_size, stages)) >= MIN_VIEW_ON_CORES


def list_stages(config: ConfigDict) -> list[ConfigDict]:
  """The configs of the stages that a config of any kind but 'evaluate' trains."""
  if config.objective == 'table':
    return cells.list_stages(config)
  return list(config.stages.values()) if config.objective == 'recipe' else [config]


def find_view_size(stage: ConfigDict) -> int:
  """The side of a stage's largest views, px."""
  if stage.objective == 'moco':
    return stage.augment.size
  return max(task_config.augment.size for task_config in stage.tasks.values())
