"""Checks a config once, before anything else happens. Every error states the value, the rule and a remedy.

A value that a remedy suggests passes these checks, unless something else in the config is wrong.
"""

import collections
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.paths import check_path, find_read_defect
from mtpret_jax.config.renamed import check_renamed
from mtpret_jax.config.schema import LIMITS, OBJECTIVES, find_mistake
from mtpret_jax.data.task_schedule import JOINT, count_visit_steps
from mtpret_jax.tasks import find_kind
from tfds_builders.common.suggest import suggest

# The most steps of a run of stages 2 and 3, fewer than `schema.STEPS`: its visits and the learning rate of every step
# are computed in advance and kept in memory.
MAX_VISIT_STEPS = 10**7
MAIN_FIELDS = {'moco': 'moco', 'multitask': 'tasks', 'evaluate': 'run', 'recipe': 'stages',
               'table': 'inits'}  # objective -> its field


def check_objective(config: ConfigDict) -> str:
  """The objective of a config. Raises ConfigError if the config lacks the main field of its objective, or has a field
  of an earlier version."""
  check_renamed(config.to_dict())
  objective = config.get('objective')
  if objective not in MAIN_FIELDS:
    raise ConfigError(f'unknown objective {show(objective)}: choose one of {", ".join(MAIN_FIELDS)}'
                      f'{suggest(objective, MAIN_FIELDS)}')
  if MAIN_FIELDS[objective] not in config:
    raise ConfigError(f'objective={objective!r} needs the field {MAIN_FIELDS[objective]}, which this config lacks: do '
                      f'not change the objective, or use the config file of another stage')
  if objective == 'recipe':
    check_stages('a recipe', config.stages, ('moco', 'multitask'))
  elif objective == 'table':
    check_parts(config.get('stages'))
  return objective


def check_stages(owner: str, stages: Any, objectives: Collection[str]) -> None:
  """Raises ConfigError unless `stages` holds configs with these objectives."""
  for stage in stages.values() if isinstance(stages, ConfigDict) else [stages]:
    if not isinstance(stage, ConfigDict) or stage.get('objective') not in objectives:
      raise ConfigError(f'stages of {owner} must be configs of stages 1, 2 or 3, not {show(stage)}')


def check_parts(stages: Any) -> None:
  """Raises ConfigError unless `stages` of a table has a config of stage 1, one of stage 2, and one of stage 3 for each
  task."""
  parts = ('pretrain', 'continual', 'finetune')
  missing = [part for part in parts if not isinstance(stages, ConfigDict) or part not in stages]
  if missing:
    raise ConfigError(f'stages of a table must be {", ".join(parts)}, and {missing[0]} is missing: copy '
                      f'configs/table.py')
  check_stages('a table', ConfigDict({'pretrain': stages.pretrain}), ('moco',))
  check_stages('a table', ConfigDict({'continual': stages.continual}), ('multitask',))
  check_stages('a table', stages.finetune, ('multitask',))


def check_config(config: ConfigDict, *, devices: int, processes: int) -> None:
  """Raises ConfigError for the first thing that cannot work with this many devices in this many processes."""
  check_fields(config, devices, processes)
  check_devices(config, devices, processes)


def check_fields(config: ConfigDict, devices: int = 1, processes: int = 1) -> None:
  """Raises ConfigError if a field is missing or holds a value that the schema does not allow. `devices` and `processes`
  only serve to find a remedy."""
  objective = check_objective(config)
  mistake = find_mistake(config.to_dict(), OBJECTIVES[objective])
  if mistake is None:
    return
  field, value, rule = mistake
  if value is None:
    raise ConfigError(f'the config has no {field}, which objective={objective!r} needs: add it as in the config files '
                      f'of this package')
  if rule is None:
    raise ConfigError(f'{field}={show(value)}: it must be a section with fields, as in the config files of this '
                      f'package')
  if rule.choices:
    raise ConfigError(f'unknown {field} {show(value)}: choose one of {", ".join(map(str, rule.choices))}'
                      f'{suggest(value, rule.choices)}')
  if explanation := rule.explain(value):
    raise ConfigError(f'{field}={show(value)} {explanation}, with --config.{field}=<path>')
  allowed, message = rule.suggest(value), f'{field}={show(value)}: it must be {rule.words}'
  raise ConfigError(message, None if allowed is None else find_remedy(config, field, allowed, devices, processes))


def find_remedy(config: ConfigDict, field: str, value: Any, devices: int, processes: int) -> dict[str, Any]:
  """The remedy that sets `field` to `value`, and what has to change with it."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  try:
    if find_mistake(config.to_dict(), OBJECTIVES[config.objective]) is None:
      check_devices(config, devices, processes)
  except ConfigError as error:
    return {field: value} | error.remedy
  return {field: value}


def check_devices(config: ConfigDict, devices: int, processes: int) -> None:
  """Raises ConfigError if fields contradict each other, or do not suit the number of devices."""
  if config.get('init_from') and not pathlib.Path(config.init_from).is_file():  # a run, or one that is planned
    check_path('init_from', config.init_from, find_read_defect)
  if 'optimiser' in config:
    check_optimiser(config.optimiser)
  if config.objective == 'moco':
    check_moco(config, devices, processes)
  elif config.objective == 'multitask':
    check_multitask(config, devices)


def check_multitask(config: ConfigDict, devices: int) -> None:
  for name, task_config in config.tasks.items():
    unit, most = devices * task_config.group, LIMITS['tasks.batch']
    if task_config.batch % unit:
      raise batch_error(f'tasks.{name}.batch', task_config.batch, task_config.group, devices,
                        {f'tasks.{name}.batch': round_up(task_config.batch, unit)}, most)
    kind = find_kind(task_config.kind)
    kind.check(name, task_config)
    if kind.annotation != 'findings' and task_config.findings:
      raise ConfigError(f'tasks.{name}.findings={show(tuple(task_config.findings))} applies to classification only, '
                        f'and this task is {task_config.kind}', {f'tasks.{name}.findings': '()'})
    if kind.annotation != 'findings' and task_config.among:
      raise ConfigError(f'tasks.{name}.among={show(task_config.among)} applies to classification only, and this task '
                        f'is {task_config.kind}', {f'tasks.{name}.among': "''"})
    check_visit(config, name)
    check_options(config, name)
  if config.patience and len(config.tasks) > 1:
    raise ConfigError(f'patience={config.patience} needs one task, because the scores of several have no common unit, '
                      f'and this config has {len(config.tasks)}', {'patience': 0})
  # How many steps the epochs of a visit have is known only with the data. Without images it is `min_steps`.
  check_length(config, {name: count_visit_steps(task_config, 0) for name, task_config in config.tasks.items()})


def check_options(config: ConfigDict, name: str) -> None:
  """Raises ConfigError for options of the loss, the sampler and the prediction that a task's kind does not have."""
  task_config, prefix = config.tasks[name], f'tasks.{name}.'
  options = [  # (field, is it set, its kinds, its value where it is not set)
    ('loss.focal', bool(task_config.loss.focal), ('classification',), 0.0),
    ('loss.class_weights', task_config.loss.class_weights != 'none', ('classification', 'segmentation'), 'none'),
    ('uncertain', task_config.uncertain != 'ignore', ('classification',), 'ignore'),
    ('sampler', task_config.sampler != 'shuffled', ('classification', 'segmentation', 'detection'), 'shuffled')]
  for field, is_set, kinds, default in options:
    if is_set and task_config.kind not in kinds:
      raise ConfigError(f'{prefix}{field} is for {" and ".join(kinds)}, and this task is {task_config.kind}',
                        {f'{prefix}{field}': default})
  if config.temperature and task_config.kind != 'classification':
    raise ConfigError(f'temperature=True is for classification, and the task {name} is {task_config.kind}',
                      {'temperature': False})


def check_visit(config: ConfigDict, name: str) -> None:
  """Raises ConfigError unless the visits to a task have a length, and a learning rate that its order of visits uses."""
  task_config = config.tasks[name]
  if not task_config.steps and not task_config.epochs:
    raise ConfigError(f'tasks.{name}.steps=0 and tasks.{name}.epochs=0 leave a visit without a length, so one of them '
                      f'must be positive', {f'tasks.{name}.epochs': 1.0})
  if 0 < task_config.max_steps < task_config.min_steps:
    raise ConfigError(f'tasks.{name}.max_steps={task_config.max_steps} is below '
                      f'tasks.{name}.min_steps={task_config.min_steps}: it must be at least as large, or 0 for no '
                      f'limit', {f'tasks.{name}.steps': task_config.max_steps, f'tasks.{name}.max_steps': 0},
                      f' for exactly {task_config.max_steps} steps, or '
                      f'--config.tasks.{name}.min_steps={task_config.max_steps}')
  if config.order == JOINT and task_config.learning_rates:
    raise ConfigError(f'tasks.{name}.learning_rates={show(tuple(task_config.learning_rates))} cannot be used with '
                      f'order={JOINT!r}, where one step with the learning rate of the optimiser is on all tasks',
                      {f'tasks.{name}.learning_rates': ()})


def check_optimiser(optimiser: ConfigDict) -> None:
  if optimiser.final_learning_rate > optimiser.learning_rate:
    raise ConfigError(f'optimiser.final_learning_rate={optimiser.final_learning_rate} exceeds '
                      f'optimiser.learning_rate={optimiser.learning_rate}, the peak from which it falls',
                      {'optimiser.final_learning_rate': optimiser.learning_rate})


def check_length(config: ConfigDict, lengths: Mapping[str, int]) -> None:
  """Raises ConfigError if the visits of {task: steps} add up to more than MAX_VISIT_STEPS."""
  total = sum(lengths.values())
  if config.rounds * total <= MAX_VISIT_STEPS:
    return
  longest = max(lengths, key=lambda task: lengths[task])
  fewer = MAX_VISIT_STEPS // config.rounds - total + lengths[longest]
  if total <= MAX_VISIT_STEPS:
    remedy = {'rounds': MAX_VISIT_STEPS // total}
  else:
    remedy = {f'tasks.{longest}.steps': fewer} if fewer > 0 else {}
  raise ConfigError(f'{config.rounds} rounds of {total} steps exceed {MAX_VISIT_STEPS}, the maximum number of steps of '
                    f'a run', remedy)


def batch_error(field: str, batch: int, group: int, devices: int, remedy: Mapping[str, int], most: int) -> ConfigError:
  """The error for a batch that does not divide into batch-norm groups. Where the remedy exceeds what the field may
  hold, it advises a smaller group instead."""
  group_field = 'moco.group' if field == 'batch' else f'{field.removesuffix("batch")}group'
  message = (f'{field} of {batch} cannot be cut into groups of {group} on {devices} devices: it must be a multiple of '
             f'{devices} x {group} = {devices * group}')
  if remedy[field] > most:
    return ConfigError(f'{message}, and at most {most}: set a smaller --config.{group_field}')
  return ConfigError(message, remedy, f' or change --config.{group_field}')


def check_moco(config: ConfigDict, devices: int, processes: int) -> None:
  """Raises ConfigError unless batch-norm groups divide the batch on each device, blocks of `shuffle_groups` groups
  divide it in each process, and the queue, if there is one, holds a batch."""
  moco, batch = config.moco, config.batch
  queue = LIMITS['moco.queue'] if moco.negatives == 'batch' else moco.queue
  unit = math.lcm(devices * moco.group, processes * moco.group * max(moco.shuffle_groups, 2))
  if batch % (devices * moco.group):
    raise batch_error('batch', batch, moco.group, devices, fit_batch(batch, queue, unit), LIMITS['batch'])
  groups = batch // processes // moco.group  # in a process
  fitting = [count for count in range(2, min(groups, LIMITS['moco.shuffle_groups']) + 1) if groups % count == 0]
  if fitting:
    remedy = {'moco.shuffle_groups': min(fitting, key=lambda count: abs(count - moco.shuffle_groups))}
  else:
    remedy = fit_batch(batch, queue, math.lcm(devices * moco.group, processes * moco.group * 2))
    remedy |= {'moco.shuffle_groups': 2}
  if moco.shuffle_groups < 2:
    raise ConfigError(
      f'moco.shuffle_groups={moco.shuffle_groups} leaves every key in its query\'s batch-norm group, where the '
      f'statistics give the positive away, so it must be at least 2', remedy)
  if batch // processes % (moco.group * moco.shuffle_groups):
    raise ConfigError(
      f'ShuffleBN permutes the keys within blocks of moco.shuffle_groups={moco.shuffle_groups} groups of '
      f'moco.group={moco.group}, and {batch // processes} images per process are not a multiple of that', remedy)
  if queue < batch:
    raise ConfigError(f'moco.queue={queue} cannot hold the keys of batch={batch}', {'moco.queue': batch})
  if math.lcm(queue, batch) >= 2**31:  # places in the queue are counted in int32
    raise ConfigError(f'moco.queue={queue} and batch={batch} share too few divisors',
                      {'moco.queue': queue // batch * batch})
  check_weights(config.data.weights, config.data.datasets)
  for field in ('whole', 'patient_positives'):
    check_named(field, config.data[field], config.data.datasets)


def fit_batch(batch: int, queue: int, unit: int) -> dict[str, int]:
  """The remedy for a batch that must be a multiple of `unit`: the next one, with a queue that holds it."""
  fitting = round_up(max(batch, 1), unit)
  return {'batch': fitting} | ({'moco.queue': fitting} if queue < fitting else {})


def check_weights(weights: str, datasets: Sequence[str]) -> None:
  """Raises ConfigError unless `weights` is 'by_images', 'balanced', or one number for each dataset, separated by
  commas."""
  twice = [name for name, count in collections.Counter(datasets).items() if count > 1]
  if twice:
    raise ConfigError(f'data.datasets has {twice[0]!r} more than once: name each once; --config.data.weights sets how '
                      f'often its images are drawn')
  if weights in ('by_images', 'balanced'):
    return
  try:
    numbers = [float(number) for number in weights.split(',')]
  except ValueError:
    numbers = []
  if len(numbers) != len(datasets) or not all(0.001 <= number <= 1000 for number in numbers):
    raise ConfigError(
      f'invalid data.weights {show(weights)}: use balanced, by_images, or a number from 0.001 to 1000 for each of '
      f'{", ".join(datasets)}, such as {",".join("1" for _ in datasets)}')


def check_named(field: str, names: Sequence[str], datasets: Sequence[str]) -> None:
  """Raises ConfigError unless every dataset that `data.FIELD` names is among the run's datasets, if these are known
  yet."""
  others = [name for name in names if name not in datasets]
  if others and datasets:
    raise ConfigError(f'data.{field} names {others[0]!r}, which is not among the data.datasets of this run '
                      f'({", ".join(datasets)}): remove it from data.{field} or add it to data.datasets',
                      {f'data.{field}': tuple(name for name in names if name in datasets)})


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
  if value not in choices:
    raise ConfigError(f'unknown {field} {value!r}: choose one of {", ".join(choices)}{suggest(value, choices)}')


def round_up(value: int, multiple: int) -> int:
  return -(-value // multiple) * multiple
