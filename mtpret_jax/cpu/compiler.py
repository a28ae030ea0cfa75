"""What XLA is told when it compiles a step for the CPU."""

from mtpret_jax.cpu import devices

# XLA's library YNNPACK takes every convolution unless it is told which operations to take. It is the fastest for matrix
# products and sums, but not for convolutions, least of all for their kernel gradients.
YNNPACK: dict[str, str | bool] = {'xla_cpu_experimental_ynn_fusion_type': ','.join(
  f'LIBRARY_FUSION_TYPE_{kind}' for kind in ('DOT', 'INDIVIDUAL_DOT', 'REDUCE'))}
# Where each core is a device: no operation is split over threads, and operations come in the order that needs the least
# memory, because an order that lets many run at once gains nothing.
ONE_CORE: dict[str, str | bool] = {'xla_cpu_multi_thread_eigen': False,
                                   'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def choose_options() -> dict[str, str | bool]:
  """XLA's compiler options for the devices there are."""
  return YNNPACK | ONE_CORE if devices.has_device_per_core() else YNNPACK
