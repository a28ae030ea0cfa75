"""On a CPU, cores as devices.

Most operations of a step are too short to be worth sharing between cores. Where a batch has several batch-norm groups
anyway, each core takes whole groups of its own (docs/benchmarks.md has what that gains). The result does not depend on
the number of devices, but for the order in which floats are added.
"""

import os

import jax
from joblib import cpu_count

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.validate import check_config, check_fields

MOST = 8  # devices: each keeps a copy of the state
VARIABLE, FLAG = 'JAX_NUM_CPU_DEVICES', 'xla_force_host_platform_device_count'


def use_cores(config):
  """Makes devices of this CPU's cores, as many as can share the batches of `config` by whole batch-norm groups. To be
  called before jax has devices; TPUs, GPUs and a number that the environment gives (JAX_NUM_CPU_DEVICES=1 is as
  without this) stay as they are."""
  make_devices(count_devices(config))


def make_devices(count):
  if VARIABLE not in os.environ and FLAG not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', count)


def are_devices():
  """Whether each of several cores is a device of its own, so that no operation needs to be shared."""
  return jax.local_device_count('cpu') >= cpu_count() > 1


def count_devices(config):
  """As many as can share every stage; 1 where nothing is trained, and where the config is one that cannot work."""
  try:
    check_fields(config)
  except ConfigError:
    return 1
  return 1 if config.objective == 'evaluate' else find_most(lambda count: can_share(config, count))


def find_most(fits):
  """The largest number of devices that `fits` and for which there are cores."""
  return next((count for count in range(min(cpu_count(), MOST), 1, -1) if fits(count)), 1)


def can_share(config, devices):
  """Whether the batches of every stage can be cut into whole groups for so many devices."""
  try:
    for stage in config.stages.values() if config.objective == 'recipe' else [config]:
      check_config(stage.copy_and_resolve_references(), devices=devices, processes=1)
  except ConfigError:
    return False
  return True
