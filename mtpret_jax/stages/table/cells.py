"""The cells of the table: which fine-tuning runs it has, from which pretraining each starts, and all their configs.

A cell is one run of stage 3. All cells of a task have the same config except for `init`, `data.fraction` and the seed,
so that a difference between two of them is due to the pretraining. Stage 2 runs once for each share of the labels and
seed, and learns from the same labelled patients as its cells: a trunk that has learned more labels than its cell would
be at an advantage.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterator, Sequence

from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.models.weight_files import FORMATS
from mtpret_jax.runtime import prepare_data
from mtpret_jax.runtime.initial_weights import SCRATCH, STAGE_2_INITS
from tfds_builders import leakage
from tfds_builders.common.suggest import suggest

INITS = (SCRATCH, 'imagenet', 'moco', 'md_moco', *STAGE_2_INITS)
LEAST_TASKS = 2  # of stage 2; with one task there is no schedule and nothing to forget

Labels = tuple[str, float]  # a task and a share of its labels


@dataclasses.dataclass(frozen=True)
class Cell:
  """One fine-tuning run.

  Attributes:
    task: its name.
    init: the pretraining, one of INITS.
    fraction: the share of the labelled patients.
    seed: of the weights, the augmentation and the choice of patients.
    config: of stage 3; its workdir is <workdir>/cells/<task>/<init>/<fraction>/<seed>.
    needs: the names of the pretraining runs that its trunk descends from, the first one first.
  """

  task: str
  init: str
  fraction: float
  seed: int
  config: ConfigDict
  needs: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    return f'{self.task}, {self.init}, {100 * self.fraction:.4g} % of the labels, seed {self.seed}'


def resolve(config: ConfigDict) -> ConfigDict:
  """The config without references. If stage 1 names no datasets, it gets those that are found in `data.archives` and
  that share no image with an external task. Without an initialisation from stage 1 on all datasets, it gets those of
  the tasks."""
  resolved = config.copy_and_resolve_references().unlock()
  resolved.stages.continual = copy_stage(config.stages.continual)
  first = resolved.stages.pretrain
  if not list_inits_from_all(config):
    first.data.datasets = tuple(dict.fromkeys(task.dataset for _, task in list_tasks(resolved) if not task.external))
  elif not first.data.datasets:
    prepare_data.choose_datasets(first)
    external = [task.dataset for _, task in list_tasks(resolved) if task.external]
    first.data.datasets = tuple(name for name in first.data.datasets
                                if not any(leakage.explain_overlap(other, name) for other in external))
  return resolved


def copy_stage(stage: ConfigDict) -> ConfigDict:
  """A copy without references that keeps the order of the tasks, which `copy_and_resolve_references` would sort."""
  return saved.make_config(stage.to_dict())


def list_tasks(config: ConfigDict) -> Iterator[tuple[ConfigDict, ConfigDict]]:
  """(stage 3, its task's config) of each task of the table."""
  for name in config.tasks:
    yield config.stages.finetune[name], config.stages.finetune[name].tasks[name]


def list_stages(config: ConfigDict) -> list[ConfigDict]:
  """The configs of stage 1, stage 2 and of stage 3 for each task, as far as the initialisations need them."""
  inits = set(list_inits(config))
  return [*([config.stages.pretrain] if inits - {SCRATCH, 'imagenet'} else []),
          *([config.stages.continual] if inits & STAGE_2_INITS.keys() else []),
          *(config.stages.finetune[name] for name in config.tasks if name in config.stages.finetune)]


def check_table(config: ConfigDict) -> None:
  """Raises ConfigError if the fields of a table contradict each other. Its stages are checked one by one. Fills in the
  datasets of stage 1, see `resolve`, so that they are looked for once."""
  for field, names, choices in (('inits', config.inits, INITS), ('tasks', config.tasks, config.stages.finetune)):
    unknown = [name for name in names if name not in choices]
    if unknown:
      raise ConfigError(f'unknown {field} {show(unknown[0])}: choose some of {", ".join(choices)}'
                        f'{suggest(unknown[0], choices)}')
  for field in ('inits', 'tasks', 'fractions', 'seeds'):
    if len(set(config[field])) < len(config[field]):
      raise ConfigError(f'{field}={show(tuple(config[field]))} has a value twice: name each once')
  for name in config.tasks:
    own = list(config.stages.finetune[name].tasks)
    if own != [name]:
      raise ConfigError(f'stages.finetune.{name}.tasks must have the task {name} and no other, not {", ".join(own)}')
  if config.imagenet and pathlib.Path(config.imagenet).is_dir():
    raise ConfigError(f'imagenet={show(config.imagenet)} is a folder, but must be {FORMATS}: set --config.imagenet')
  datasets = resolve(config).stages.pretrain.data.datasets
  config.stages.pretrain.data.datasets = datasets
  with_all = list_inits_from_all(config)
  if with_all and len(datasets) < 2:
    raise ConfigError(f'{with_all[0]} needs at least two datasets in stages.pretrain.data.datasets, not '
                      f'{show(tuple(datasets))}: name more, or set --config.inits="(\'scratch\',\'moco\')"')
  if not list_inits(config):
    raise ConfigError(f'no initialisation is left of inits={show(tuple(config.inits))}: "imagenet" needs '
                      f'--config.imagenet')


def list_inits(config: ConfigDict) -> list[str]:
  """The initialisations of the table: without 'imagenet' if there is no file of its weights."""
  return [init for init in config.inits if init != 'imagenet' or config.imagenet]


def list_inits_from_all(config: ConfigDict) -> list[str]:
  """Those that descend from stage 1 on all of its datasets."""
  return [init for init in list_inits(config) if init not in (SCRATCH, 'imagenet', 'moco')]


def make_cells(config: ConfigDict, too_few: Collection[Labels] = ()) -> list[Cell]:
  """All cells of the table, in the order in which they run: every cell of one seed before those of the next.

  Args:
    too_few: the shares of labels that keep too few images, see `counts.find_too_few`. They have no cell.
  """
  config = resolve(config)
  return [make_cell(config, task, init, fraction, seed) for seed, fraction, init, task in list_keys(config, too_few)]


def list_keys(config: ConfigDict, too_few: Collection[Labels]) -> Iterator[tuple[int, float, str, str]]:
  """(seed, fraction, init, task) of each cell."""
  for seed, fraction, init, task in itertools.product(
      config.seeds, sorted(config.fractions), list_inits(config), config.tasks):
    if has_cell(config, task, init, fraction, too_few):
      yield seed, fraction, init, task


def has_cell(config: ConfigDict, task: str, init: str, fraction: float, too_few: Collection[Labels]) -> bool:
  if (task, fraction) in too_few:
    return False
  if init == 'moco' and config.stages.finetune[task].tasks[task].external:
    return False  # pretraining must not see an external dataset
  return init not in STAGE_2_INITS or len(list_continual_tasks(config, fraction, too_few)) >= LEAST_TASKS


def list_continual_tasks(config: ConfigDict, fraction: float, too_few: Collection[Labels]) -> list[str]:
  """The tasks of stage 2 with this share of the labels: those that keep enough images and are not external."""
  return [name for name, task_config in config.stages.continual.tasks.items()
          if (name, fraction) not in too_few and not task_config.external]


def list_needs(config: ConfigDict, task: str, init: str, fraction: float, seed: int) -> tuple[str, ...]:
  """The names of the pretraining runs that the trunk of a cell descends from, the first one first."""
  if init in (SCRATCH, 'imagenet'):
    return ()
  suffix = '' if config.pretrain_once else f'/{seed}'
  if init == 'moco':
    return (f'moco/{config.stages.finetune[task].tasks[task].dataset}{suffix}',)
  return (f'md_moco{suffix}',) if init == 'md_moco' else (f'md_moco{suffix}', f'{init}/{fraction:g}/{seed}')


def find_workdir(config: ConfigDict, name: str) -> str:
  """The workdir of a pretraining run."""
  return str(pathlib.Path(config.workdir, 'pretraining', name))


def make_cell(config: ConfigDict, task: str, init: str, fraction: float, seed: int) -> Cell:
  needs = list_needs(config, task, init, fraction, seed)
  stage = copy_stage(config.stages.finetune[task])
  stage.update(workdir=str(pathlib.Path(config.workdir, 'cells', task, init, f'{fraction:g}', str(seed))), seed=seed,
               init=init, init_from=find_workdir(config, needs[-1]) if needs else '')
  if init == 'imagenet':
    stage.init_from = config.imagenet
  stage.data.update(fraction=fraction, fraction_seed=seed)
  return Cell(task, init, fraction, seed, stage, needs)


def make_pretraining(config: ConfigDict, too_few: Collection[Labels] = ()) -> dict[str, ConfigDict]:
  """{name: config} of the runs of stages 1 and 2 that the cells need; each comes after those that it needs."""
  config = resolve(config)
  runs: dict[str, ConfigDict] = {}
  for seed, fraction, init, task in list_keys(config, too_few):
    for name in list_needs(config, task, init, fraction, seed):
      if name in runs:
        continue
      if name.startswith('moco/'):
        runs[name] = make_first_stage(config, name, seed, [config.stages.finetune[task].tasks[task].dataset])
      elif name.startswith('md_moco'):
        runs[name] = make_first_stage(config, name, seed, config.stages.pretrain.data.datasets)
      else:
        runs[name] = make_second_stage(config, name, init, list_continual_tasks(config, fraction, too_few), fraction,
                                       seed)
  return runs


def make_first_stage(config: ConfigDict, name: str, seed: int, datasets: Sequence[str]) -> ConfigDict:
  """Stage 1 on these datasets. `seed` is that of the cells."""
  stage = copy_stage(config.stages.pretrain)
  stage.update(workdir=find_workdir(config, name), seed=config.seed if config.pretrain_once else seed)
  if tuple(datasets) != tuple(stage.data.datasets):
    stage.data.weights = 'by_images'  # the field may have a number for each of the other datasets
  stage.data.datasets = tuple(datasets)
  for field in ('whole', 'patient_positives'):
    stage.data[field] = tuple(name for name in stage.data[field] if name in datasets)
  return stage


def make_second_stage(config: ConfigDict, name: str, init: str, tasks: Sequence[str], fraction: float,
                      seed: int) -> ConfigDict:
  """Stage 2 on these tasks, from `md_moco`, with the order and the memory that `init` stands for."""
  stage = copy_stage(config.stages.continual)
  first, = list_needs(config, '', 'md_moco', fraction, seed)
  stage.update(workdir=find_workdir(config, name), seed=seed, init='md_moco', init_from=find_workdir(config, first))
  stage.order, stage.memory.anchor = STAGE_2_INITS[init]
  for task in set(stage.tasks) - set(tasks):
    del stage.tasks[task]
  stage.data.update(fraction=fraction, fraction_seed=seed)
  return stage
