"""How this program gets memory from the kernel and gives it back. Linux with glibc only; elsewhere nothing is done.

Large pages: a step on a CPU needs hundreds of MB of temporary memory, which glibc takes from the kernel for each step
and gives back after it. With pages of 4 KB that causes tens of thousands of page faults per step; with pages of 2 MB,
hundreds (docs/performance.md). glibc reads its tunables only when a program starts, so `restart_with_tunables` sets
them and starts the program again.

Arenas: glibc keeps up to 64 MB of freed memory at the end of each of its arenas, and makes up to eight arenas a core.
The threads of a checkpoint's save may take hundreds of MB from any of them. With one arena a core this stays bounded
(docs/reliability.md). With a single arena, the cores would contend for it.
"""

import ctypes
import os
import pathlib
import platform
import sys
from collections.abc import Mapping

VARIABLE = 'GLIBC_TUNABLES'
LARGE_PAGES = 'glibc.malloc.hugetlb'  # 1: madvise(MADV_HUGEPAGE) for large blocks
ARENAS = 'glibc.malloc.arena_max'
PAGE_POLICY = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
MIN_GLIBC = (2, 35)  # has both tunables


def restart_with_tunables() -> None:
  """Starts this program again, in the same process, with glibc's tunables set. Returns if they are set already or would
  change nothing. Call this before anything slow is imported."""
  if added := add_tunables(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **added})


def add_tunables(environment: Mapping[str, str]) -> dict[str, str]:
  """{GLIBC_TUNABLES: its present value plus the missing tunables}, to add to `environment`; {} if none is missing."""
  given = environment.get(VARIABLE, '')
  missing = [f'{name}={value}' for name, value in list_tunables().items() if name not in given]
  return {VARIABLE: ':'.join([given] * bool(given) + missing)} if missing else {}


def list_tunables(page_policy: pathlib.Path = PAGE_POLICY) -> dict[str, int]:
  """{name: value} of the tunables that have an effect here. Large pages need a kernel with the page policy 'madvise',
  which gives them only to programs that ask. Only glibc 2.35 and later has both tunables."""
  name, version = platform.libc_ver()
  if name != 'glibc' or tuple(map(int, version.split('.')[:2])) < MIN_GLIBC:
    return {}
  pages = {LARGE_PAGES: 1} if page_policy.exists() and '[madvise]' in page_policy.read_text() else {}
  return pages | {ARENAS: len(os.sched_getaffinity(0))}


def release_free_memory() -> None:
  """Returns the freed memory that the C library keeps to the kernel."""
  if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
    trim(0)
