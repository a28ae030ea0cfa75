"""Memory that a CPU's steps use again and again.

A step's temporaries are hundreds of MB. glibc returns a block of that size to the kernel as soon as it is freed, and
the next step has it mapped and cleared anew, page by page: a tenth of a step at 128 px (docs/benchmarks.md). TPUs and
GPUs have memory of their own.
"""

import ctypes

import jax

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST = 2**31 - 1


def stay_in_main_thread():
  """A CPU's steps run in the thread that asks for them: only the main thread's heap can hold blocks of more than 64 MB.
  To be called before jax looks for devices; it changes nothing on TPUs and GPUs."""
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def keep_memory():
  """Freed memory stays with the process, up to 2 GB at the heap's end. Does nothing on other backends, or where the C
  library has no `mallopt`."""
  set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
  if set_option and jax.default_backend() == 'cpu':
    set_option(MMAP_MAX, 0)
    set_option(TRIM_THRESHOLD, LARGEST)
