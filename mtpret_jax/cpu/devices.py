"""Each core of the CPU as a jax device.

For large views it is faster to give each core whole batch-norm groups, as a TPU chip would have, than to split every
operation over the cores; for small views it is slower. The result does not depend on the number of devices, except for
the order in which floats are added. docs/performance.md shows the speed-up.
"""

import os
from collections.abc import Callable

import jax
from joblib import cpu_count

MAX_DEVICES = 8  # each device keeps a copy of the state
VARIABLE, FLAG = 'JAX_NUM_CPU_DEVICES', 'xla_force_host_platform_device_count'


def make_devices(count: int) -> None:
  """Makes `count` CPU devices, unless the environment sets a number: JAX_NUM_CPU_DEVICES=1 gives one device that uses
  all cores. Call this before jax starts its backends."""
  if VARIABLE not in os.environ and FLAG not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', count)


def find_most(fits: Callable[[int], bool]) -> int:
  """The largest number of devices, at most one for each core, for which `fits` is true; 1 if there is none."""
  return next((count for count in range(min(cpu_count(), MAX_DEVICES), 1, -1) if fits(count)), 1)


def has_device_per_core() -> bool:
  """Whether each of several cores has a device of its own, so that no operation needs to be split over cores."""
  return jax.local_device_count('cpu') >= cpu_count() > 1
