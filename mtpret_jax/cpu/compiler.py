"""The compiler options for steps on the CPU."""

from mtpret_jax.cpu import devices

# XLA otherwise orders operations so that many can run at once. Where each core is a device, that gains nothing, and the
# temporary memory of the step no longer fits the caches.
MEMORY_FIRST: dict[str, str | int] = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


# LLVM's optimisation takes most of the time to compile the initial state, which runs once. At level 1 that takes less
# than half the time, and random weights differ by rounding at most.
QUICK: dict[str, str | int] = {'xla_backend_optimization_level': 1}


def choose_options(runs_once: bool = False) -> dict[str, str | int]:
  """XLA's compiler options for the devices of this process, and for a program that runs in every step or only once."""
  if runs_once:
    return QUICK
  return MEMORY_FIRST if devices.has_device_per_core() else {}
