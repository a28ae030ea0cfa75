"""How this program has its memory from the kernel, and gives it back. Linux with glibc; elsewhere nothing is done.

Large pages: a CPU step's temporaries are hundreds of MB, which glibc takes from the kernel for each step and gives back
after it. In pages of 4 KB that is a hundred thousand page faults a step, a tenth of its time (docs/benchmarks.md); in
pages of 2 MB, a few hundred. glibc asks for those only where its tunables say so when the program starts.

Giving back: of what is freed glibc keeps holes between what is not, and in each of its arenas up to 64 MB at the end.
On request it returns all holes, but only the first arena's end; and it makes eight arenas a core, from any of which
each of a save's new threads may take its hundreds of MB. With one arena all goes back (docs/reliability.md), but two
cores wait for each other's use of it, a tenth of a step; so there is one for each core.
"""

import ctypes
import os
import pathlib
import platform
import sys

VARIABLE = 'GLIBC_TUNABLES'
LARGE = 'glibc.malloc.hugetlb'  # 1: madvise(MADV_HUGEPAGE) whatever is large enough
ARENAS = 'glibc.malloc.arena_max'
CHOICE = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
OLDEST = (2, 35)  # the glibc that has both


def set_up():
  """Starts this program anew with glibc's tunables set, in the same process, unless they are set or would change
  nothing. To be called before anything slow is imported."""
  if added := add_tunables(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added)


def add_tunables(environment):
  """The variable that sets them, with what else it says; {} where nothing is to be added."""
  said = environment.get(VARIABLE, '')
  wanted = [f'{name}={value}' for name, value in list_tunables().items() if name not in said]
  return {VARIABLE: ':'.join([said] * bool(said) + wanted)} if wanted else {}


def list_tunables(choice=CHOICE):
  """{name: value} of those that would change something: whether this C library has them, and whether the kernel gives
  large pages to those who ask, and only to them."""
  name, version = platform.libc_ver()
  if name != 'glibc' or tuple(map(int, version.split('.')[:2])) < OLDEST:
    return {}
  pages = {LARGE: 1} if choice.exists() and '[madvise]' in choice.read_text() else {}
  return pages | {ARENAS: len(os.sched_getaffinity(0))}


def give_back():
  """Returns to the kernel what the C library has kept of freed memory."""
  if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
    trim(0)
