"""The compiler options for steps on the CPU."""

from mtpret_jax.cpu import devices

# XLA otherwise orders operations so that many can run at once. Where each core is a device, that gains nothing, and the
# temporary memory of the step no longer fits the caches.
MEMORY_FIRST = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def choose_options() -> dict[str, str]:
  """XLA's compiler options for the devices of this process."""
  return MEMORY_FIRST if devices.has_device_per_core() else {}
