"""On a CPU, cores as devices.

Two cores that take half of a batch each are faster than two that share every operation of the whole: most operations
of a step are too short to be worth sharing (docs/benchmarks.md). The result does not depend on the number of devices,
but for the order in which floats are added.
"""

import os

import jax

from mtpret_jax.check import ConfigError, check_config, check_fields

MOST = 8  # devices: each keeps a copy of the state
FLAG = 'xla_force_host_platform_device_count'


def use_cores(config):
  """Makes devices of this CPU's cores, as many as can share the batches of `config` by whole batch-norm groups. To be
  called before jax has devices; TPUs, GPUs and a number that XLA_FLAGS gives stay as they are."""
  make_devices(count_devices(config, count_cores()))


def count_cores():
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def are_devices():
  """Whether each of several cores is a device of its own, so that no operation needs to be shared."""
  return jax.local_device_count('cpu') >= count_cores() > 1


def make_devices(count):
  if FLAG not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', count)


def count_devices(config, cores):
  """The most that `cores` cores can be; 1 where nothing is trained, and where the config is one that cannot work."""
  if config.objective == 'evaluate':
    return 1
  return next((count for count in range(min(cores, MOST), 1, -1) if can_share(config, count)), 1)


def can_share(config, devices):
  """Whether the batches of every stage can be cut into whole groups for so many devices."""
  try:
    check_fields(config)
    for stage in config.stages.values() if config.objective == 'recipe' else [config]:
      check_config(stage.copy_and_resolve_references(), devices=devices, processes=1)
  except ConfigError:
    return False
  return True
