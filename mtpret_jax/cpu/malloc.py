"""Bounds the freed memory that glibc keeps. With another C library nothing is done.

glibc keeps up to 64 MB of freed memory at the end of each of its arenas, and makes up to eight arenas a core. The
threads of a checkpoint's save may take hundreds of MB from any of them. With one arena a core this stays bounded
(docs/reliability.md). With a single arena, the cores would wait for each other's use of it.
"""

import ctypes
import os

M_ARENA_MAX = -8  # of glibc's mallopt


def limit_arenas(count: int | None = None) -> None:
  """Limits glibc to `count` arenas, by default one for each core, unless the environment sets a number. Call this
  before threads start: arenas that exist stay."""
  if 'arena_max' in os.environ.get('GLIBC_TUNABLES', '') or 'MALLOC_ARENA_MAX' in os.environ:
    return
  if mallopt := getattr(ctypes.CDLL(None), 'mallopt', None):
    mallopt(M_ARENA_MAX, count or len(os.sched_getaffinity(0)))


def release_free_memory() -> None:
  """Returns the freed memory that the C library keeps to the kernel."""
  if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
    trim(0)
