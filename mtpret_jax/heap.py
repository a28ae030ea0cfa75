"""Memory that a CPU's steps use again and again.

A step's temporaries are hundreds of MB. glibc returns a block of that size to the kernel as soon as it is freed, and
the next step has it mapped and cleared anew, page by page: a tenth of a step at 128 px. TPUs and GPUs have memory of
their own.
"""

import ctypes

import jax

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
LARGEST = 2**31 - 1


def keep_memory():
  """Freed memory stays with the process, up to 2 GB at the heap's end. Does nothing on other backends, or where the C
  library has no `mallopt`."""
  set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
  if set_option and jax.default_backend() == 'cpu':
    set_option(ARENA_MAX, 1)  # the other arenas cannot hold a block of more than 64 MB, and would map it
    set_option(MMAP_MAX, 0)
    set_option(TRIM_THRESHOLD, LARGEST)
