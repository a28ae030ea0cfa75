"""How this program has its memory from the kernel, and gives it back. Linux with glibc; elsewhere nothing is done.

Large pages: a CPU step's temporaries are hundreds of MB, which glibc takes from the kernel for each step and gives back
after it. In pages of 4 KB that is a hundred thousand page faults a step, a tenth of its time (docs/benchmarks.md); in
pages of 2 MB, a few hundred. glibc asks for those only where its tunables say so when the program starts.

Giving back: of what is freed glibc keeps holes between what is not, and tens of MB at the end of each of its arenas, of
which there may be eight a core.
"""

import ctypes
import os
import pathlib
import platform
import sys

VARIABLE, TUNABLE = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb'  # 1: madvise(MADV_HUGEPAGE) whatever is large enough
CHOICE = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
OLDEST = (2, 35)  # the glibc that has the tunable


def use_large_pages():
  """Starts this program anew with glibc's tunable set, in the same process, unless it is set or would change nothing.
  To be called before anything slow is imported."""
  if TUNABLE not in os.environ.get(VARIABLE, '') and would_help():
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | add_tunable(os.environ))


def would_help(choice=CHOICE):
  """Whether the kernel gives large pages to those who ask, and only to them, and whether this C library can ask."""
  name, version = platform.libc_ver()
  return (name == 'glibc' and tuple(map(int, version.split('.')[:2])) >= OLDEST
          and choice.exists() and '[madvise]' in choice.read_text())


def add_tunable(environment):
  """The variable that asks for large pages, with what else it says."""
  others = environment.get(VARIABLE)
  return {VARIABLE: f'{others}:{TUNABLE}=1' if others else f'{TUNABLE}=1'}


def give_back():
  """Returns to the kernel what the C library has kept of freed memory."""
  if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
    trim(0)
