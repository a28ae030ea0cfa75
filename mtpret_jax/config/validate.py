"""Checks a config once, at the border: every error states the value, the rule and a remedy. A remedy with a value in it
is one that is accepted, as long as nothing else is wrong."""

import collections
import math
import pathlib
import re
import tempfile

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.schema import LIMITS, OBJECTIVES, find_mistake

STEPS = 10**7  # of a run of stages 2 and 3, whose visits and rates are laid out in advance
BUILT_ON = {'moco': 'moco', 'multitask': 'tasks', 'evaluate': 'run', 'recipe': 'stages'}  # objective: its field


def check_objective(config):
  """Which objective a config has; raises ConfigError where it lacks what that is about."""
  objective = config.get('objective')
  if objective not in BUILT_ON:
    raise ConfigError(f'unknown objective {show(objective)}; have {", ".join(BUILT_ON)}')
  if BUILT_ON[objective] not in config:
    raise ConfigError(f'objective={objective!r} does not go with a config that has no {BUILT_ON[objective]}: leave '
                      f'it as the config file has it, and name the file of another stage')
  if objective == 'recipe':
    stages = config.stages.values() if isinstance(config.stages, ConfigDict) else [config.stages]
    for stage in stages:
      if not isinstance(stage, ConfigDict) or stage.get('objective') not in ('moco', 'multitask'):
        raise ConfigError(f'stages of a recipe must be configs of stages 1, 2 or 3, not {show(stage)}')
  return objective


def check_config(config, *, devices, processes):
  """Raises ConfigError for the first thing that cannot work with this many devices in this many processes."""
  check_fields(config, devices, processes)
  check_devices(config, devices, processes)


def check_fields(config, devices=1, processes=1):
  """Raises ConfigError where a field is missing or cannot hold its value."""
  objective = check_objective(config)
  mistake = find_mistake(config.to_dict(), OBJECTIVES[objective])
  if mistake is None:
    return
  field, value, rule = mistake
  if value is None:
    raise ConfigError(f'the config has no {field}, which objective={objective!r} needs: add it as the config files of '
                      f'this package have it')
  if rule is None:
    raise ConfigError(f'{field}={show(value)}: it must have fields of its own, as in the config files of this package')
  if rule.choices:
    raise ConfigError(f'unknown {field} {show(value)}; have {", ".join(map(str, rule.choices))}')
  mended, words = rule.mend(value), f'{field}={show(value)}: it must be {rule.words}'
  raise ConfigError(words, None if mended is None else mend_all(config, field, mended, devices, processes))


def mend_all(config, field, value, devices, processes):
  """The remedy that sets `field` to `value`, and what else has to change with it."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  try:
    if find_mistake(config.to_dict(), OBJECTIVES[config.objective]) is None:
      check_devices(config, devices, processes)
  except ConfigError as error:
    return {field: value} | error.remedy
  return {field: value}


def check_devices(config, devices, processes):
  """Raises ConfigError where fields do not fit each other or the devices."""
  if config.objective == 'moco':
    check_moco(config, devices, processes)
  elif config.objective == 'multitask':
    check_multitask(config, devices)


def check_multitask(config, devices):
  for name, task_config in config.tasks.items():
    unit, most = devices * task_config.group, LIMITS['tasks.batch']
    if task_config.batch % unit:
      field = f'tasks.{name}.batch'
      remedy = {field: round_up(task_config.batch, unit)}
      raise ConfigError(*refuse_groups(field, task_config.batch, task_config.group, devices, remedy, most))
    if task_config.kind == 'detection' and not task_config.objects:
      raise ConfigError(f'tasks.{name}.objects=0 leaves no room for a box', {f'tasks.{name}.objects': 8})
    if task_config.kind != 'classification' and task_config.findings:
      raise ConfigError(f'tasks.{name}.findings={show(tuple(task_config.findings))} are for classification, and this task is '
                        f'{task_config.kind}', {f'tasks.{name}.findings': '()'})
  check_length(config, {name: max(task_config.steps, 1) for name, task_config in config.tasks.items()})  # an epoch has one or more


def check_length(config, lengths):
  """Raises ConfigError where the visits of {task: steps} are more steps than can be laid out."""
  total = sum(lengths.values())
  if config.rounds * total <= STEPS:
    return
  longest = max(lengths, key=lengths.get)
  fewer = STEPS // config.rounds - total + lengths[longest]
  remedy = {'rounds': STEPS // total} if total <= STEPS else {f'tasks.{longest}.steps': fewer} if fewer > 0 else None
  raise ConfigError(f'{config.rounds} rounds of {total} steps are more than the {STEPS} of one run', remedy)


def refuse_groups(field, batch, group, devices, remedy, most):
  """What a ConfigError says of a batch that cannot be cut; a remedy beyond what the field may hold is none."""
  fits, holds = devices * group, 'moco.group' if field == 'batch' else field.replace('batch', 'group')
  words = (f'{field} of {batch} cannot be cut into groups of {group} on {devices} devices: it must be a multiple of '
           f'{devices} x {group} = {fits}')
  if remedy[field] > most:
    return f'{words}, and at most {most}; set a smaller config.{holds}', None
  return words, remedy, f' or another config.{holds}'


def check_moco(config, devices, processes):
  moco, batch = config.moco, config.batch
  unit = math.lcm(devices * moco.group, processes * moco.group * max(moco.shuffle_groups, 2))
  if batch % (devices * moco.group):
    raise ConfigError(*refuse_groups('batch', batch, moco.group, devices, fit_batch(batch, moco.queue, unit),
                                     LIMITS['batch']))
  rows = batch // processes // moco.group  # groups in a process
  fits = [count for count in range(2, min(rows, LIMITS['moco.shuffle_groups']) + 1) if rows % count == 0]
  nearest = {'moco.shuffle_groups': min(fits, key=lambda count: abs(count - moco.shuffle_groups))} if fits else (
    fit_batch(batch, moco.queue, math.lcm(devices * moco.group, processes * moco.group * 2))
    | {'moco.shuffle_groups': 2})
  if moco.shuffle_groups < 2:
    raise ConfigError(
      f'moco.shuffle_groups={moco.shuffle_groups} leaves every key in its query\'s batch-norm group, where the '
      f'statistics give the positive away, so it must be at least 2', nearest)
  if batch // processes % (moco.group * moco.shuffle_groups):
    raise ConfigError(
      f'{batch // processes} rows a process cannot be cut into blocks of {moco.shuffle_groups} groups of {moco.group}, '
      f'within which keys change place', nearest)
  if moco.queue % batch:
    longer, shorter = round_up(moco.queue, batch), moco.queue // batch * batch
    raise ConfigError(f'queue of {moco.queue} keys is not a multiple of batch {batch}',
                      {'moco.queue': longer if longer <= LIMITS['moco.queue'] else shorter})
  check_weights(config.data.weights, config.data.datasets)


def fit_batch(batch, queue, unit):
  """The remedy for a batch that must be a multiple of `unit` and divide the queue: the nearest that does both, or the
  next multiple together with a queue for it."""
  whole = queue // unit if queue % unit == 0 else 0
  both = {unit * part for low in range(1, math.isqrt(whole) + 1) if whole % low == 0 for part in (low, whole // low)}
  both = {size for size in both if size <= LIMITS['batch'] and batch / 4 <= size <= 4 * max(batch, unit)}
  if both:
    return {'batch': min(both, key=lambda size: (abs(size - batch), size))}
  fitting = round_up(max(batch, 1), unit)
  return {'batch': fitting} | ({'moco.queue': round_up(queue, fitting)} if queue % fitting else {})


def check_weights(weights, datasets):
  """'by_images', 'balanced', or one number for each dataset, with commas between."""
  twice = [name for name, count in collections.Counter(datasets).items() if count > 1]
  if twice:
    raise ConfigError(f'data.datasets has {twice[0]!r} more than once: name each once; config.data.weights says how '
                      f'often its images come')
  if weights in ('by_images', 'balanced'):
    return
  try:
    numbers = [float(number) for number in weights.split(',')]
  except ValueError:
    numbers = []
  if len(numbers) != len(datasets) or not all(0.001 <= number <= 1000 for number in numbers):
    raise ConfigError(
      f'unknown data.weights {show(weights)}; have balanced, by_images, or a number from 0.001 to 1000 for each of '
      f'{", ".join(datasets)}, such as {",".join("1" for _ in datasets)}')


def check_choice(field, value, choices):
  if value not in choices:
    raise ConfigError(f'unknown {field} {value!r}; have {", ".join(choices)}')


FILES = ('run.lock', 'metrics.jsonl', 'validation.jsonl', 'bad_batches.jsonl')  # of a workdir


def check_workdir(workdir):
  """Makes the folder and writes in it once, so that an unwritable one is noticed before hours of work. What a run
  writes to by itself must be files: a pipe would be waited for."""
  try:
    pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    tempfile.NamedTemporaryFile(dir=workdir, prefix='.writable-').close()
  except OSError as error:
    raise ConfigError(f'cannot write to workdir {str(workdir)!r} ({error.strerror}): choose another with '
                      f'--config.workdir=<folder>') from error
  for path in (pathlib.Path(workdir, name) for name in FILES):
    if (path.exists() or path.is_symlink()) and not path.is_file():
      raise ConfigError(f'{path} is no file: remove it, or choose another folder with --config.workdir=<folder>')


def check_folder(field, folder):
  """Raises ConfigError where `folder` neither is a folder nor can become one: a file is in its place or above it."""
  place = pathlib.Path(folder).absolute()
  while not (place.exists() or place.is_symlink()):
    place = place.parent
  if not place.is_dir():
    raise ConfigError(f'{field}={show(folder)} cannot be a folder, {place} is none: choose another with '
                      f'--config.{field}=<folder>')


def round_up(value, multiple):
  return -(-value // multiple) * multiple


def in_stage(name, error):
  """A ConfigError of a stage by itself, as one of the recipe that has the stage."""
  return ConfigError(re.sub(r'\bconfig\.(?!json|py)(?=\w)', f'config.stages.{name}.', f'stage {name}: {error}'))
