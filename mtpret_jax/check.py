"""Checks a config once, at the border: every error states the value, the rule and a remedy."""

import pathlib
import tempfile

from mtpret_jax.data.order import ORDERS
from mtpret_jax.data.sources import RULES
from mtpret_jax.models.resnet import LAYERS
from mtpret_jax.sharding import STATES


class ConfigError(ValueError):
  """Something that the person who gave the command can mend; shown as one line, without a traceback."""


def check_config(config, *, devices, processes):
  """Raises ConfigError for the first thing that cannot work with this many devices in this many processes."""
  check_choice('objective', config.objective, ['contrast', 'multitask'])
  check_choice('trunk', config.trunk, sorted(LAYERS))
  check_choice('dtype', config.dtype, ['bfloat16', 'float32'])
  check_choice('sharding', config.sharding, STATES)
  check_choice('optimiser.kind', config.optimiser.kind, ['adamw', 'sgd'])
  check_choice('data.rule', config.data.rule, RULES)
  check_choice('data.stored', config.data.stored, ['256', '512', 'original'])
  check_choice('on_bad', config.on_bad, ['skip', 'stop'])
  check_spike(config)
  if config.objective == 'contrast':
    check_contrast(config, devices, processes)
  else:
    check_multitask(config, devices)


def check_spike(config):
  if config.spike and not config.spike > 1:
    raise ConfigError(f'spike={config.spike} would call ordinary losses spikes: it is a multiple of their median above '
                      f'1, such as --config.spike=4, or 0 for no such rule')
  for field, least in (('keep', 1), ('save_retries', 0), ('skips', 0), ('spike_window', 1)):
    if config[field] < least:
      raise ConfigError(f'{field}={config[field]} is too few: it must be at least {least}')


def check_groups(field, batch, group, devices):
  if batch % (devices * group):
    fits = devices * group
    raise ConfigError(
      f'{field} of {batch} cannot be cut into groups of {group} on {devices} devices: it must be a multiple of '
      f'{devices} x {group} = {fits}; try --config.{field}={round_up(batch, fits)} or another config.'
      f'{"contrast.group" if field == "batch" else field.replace("batch", "group")}')


def check_multitask(config, devices):
  check_choice('train', config.train, ['all', 'head'])
  check_choice('order', config.order, ORDERS)
  check_choice('memory.anchor', config.memory.anchor, ['none', 'previous_visit', 'start'])
  check_choice('statistics', config.statistics, ['per_task', 'shared'])
  if not 0 < config.data.fraction <= 1:
    raise ConfigError(f'data.fraction of {config.data.fraction} is not a share: it must be above 0 and at most 1')
  for name, card in config.tasks.items():
    check_groups(f'tasks.{name}.batch', card.batch, card.group, devices)


def check_contrast(config, devices, processes):
  moco, batch = config.contrast, config.batch
  check_choice('contrast.negatives', moco.negatives, ['all', 'same_source'])
  check_groups('batch', batch, moco.group, devices)
  if batch // processes % (moco.group * moco.shuffle_groups):
    raise ConfigError(
      f'{batch // processes} rows a process cannot be cut into blocks of {moco.shuffle_groups} groups of {moco.group}, '
      f'within which keys change place: try --config.contrast.shuffle_groups={batch // processes // moco.group}')
  if moco.shuffle_groups < 2:
    raise ConfigError(
      f'contrast.shuffle_groups={moco.shuffle_groups} leaves every key in its query\'s batch-norm group, where the '
      f'statistics give the positive away: use at least 2')
  if moco.queue % batch:
    raise ConfigError(
      f'queue of {moco.queue} keys is not a multiple of batch {batch}: '
      f'try --config.contrast.queue={round_up(moco.queue, batch)}')
  check_weights(config.data.weights, config.data.datasets)


def check_weights(weights, datasets):
  """'by_images', 'balanced', or one positive number for each dataset, with commas between."""
  if weights in ('by_images', 'balanced'):
    return
  try:
    numbers = [float(number) for number in weights.split(',')]
  except ValueError:
    numbers = []
  if len(numbers) != len(datasets) or min(numbers) <= 0:
    raise ConfigError(
      f'unknown data.weights {weights!r}; have balanced, by_images, or a positive number for each of '
      f'{", ".join(datasets)}, such as {",".join("1" for _ in datasets)}')


def check_choice(field, value, choices):
  if value not in choices:
    raise ConfigError(f'unknown {field} {value!r}; have {", ".join(choices)}')


def check_workdir(workdir):
  """Makes the folder and writes in it once, so that an unwritable one is noticed before hours of work."""
  try:
    pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    tempfile.NamedTemporaryFile(dir=workdir, prefix='.writable-').close()
  except OSError as error:
    raise ConfigError(f'cannot write to workdir {str(workdir)!r} ({error.strerror}): choose another with '
                      f'--config.workdir=<folder>') from error


def round_up(value, multiple):
  return -(-value // multiple) * multiple
