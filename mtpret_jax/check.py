"""Checks a config once, at the border: every error states the value, the rule and a remedy."""

import os
import pathlib

from mtpret_jax.data.sources import RULES
from mtpret_jax.models.resnet import LAYERS


class ConfigError(ValueError):
  """Something that the person who gave the command can mend; shown as one line, without a traceback."""


def check_config(config, *, devices, processes):
  """Raises ConfigError for the first thing that cannot work with this many devices in this many processes."""
  moco, batch = config.contrast, config.batch
  check_choice('trunk', config.trunk, sorted(LAYERS))
  check_choice('dtype', config.dtype, ['bfloat16', 'float32'])
  check_choice('contrast.negatives', moco.negatives, ['all', 'same_source'])
  check_choice('data.rule', config.data.rule, RULES)
  check_choice('data.stored', config.data.stored, ['256', '512', 'original'])
  if batch % (devices * moco.group):
    fits = devices * moco.group
    raise ConfigError(
      f'batch of {batch} cannot be cut into groups of {moco.group} on {devices} devices: it must be a multiple of '
      f'{devices} x {moco.group} = {fits}; try --config.batch={round_up(batch, fits)} or another config.contrast.group')
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
  probe = pathlib.Path(workdir, '.writable')
  try:
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b'')
    os.remove(probe)
  except OSError as error:
    raise ConfigError(f'cannot write to workdir {str(workdir)!r} ({error.strerror}): choose another with '
                      f'--config.workdir=<folder>') from error


def round_up(value, multiple):
  return -(-value // multiple) * multiple
