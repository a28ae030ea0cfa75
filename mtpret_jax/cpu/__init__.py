"""Everything that exists only because XLA's CPU backend or glibc needs it. On TPUs and GPUs nothing here is imported.

`cli.set_up_cpu` calls `install`. Before that, and before jax is imported, `main` calls `malloc.restart_with_tunables`.
"""

from collections.abc import Callable


def install(fits: Callable[[int], bool] | None = None) -> None:
  """Replaces the plain implementations with those for CPUs (`runtime/backend.py`).

  With `fits`, the processor's cores become jax devices: the largest number of them for which `fits(number of devices)`
  is true. That must happen before jax starts its backends.
  """
  from mtpret_jax.cpu import compiler, conv, devices, malloc, roi_align  # here, because they import jax
  from mtpret_jax.runtime import backend
  if fits is not None:
    devices.make_devices(devices.find_most(fits))
  backend.OVERRIDES.update({
    'convolve': conv.convolve_on_devices,
    'convolution_gradients': conv.gradients_on_devices,
    'align_rois': roi_align.align_on_devices,
    'compiler_options': compiler.choose_options,
    'after_save': malloc.release_free_memory,
  })
