"""Freed memory returns to the kernel, also what threads have freed if there are few arenas."""

import os
import platform
import subprocess
import sys

import pytest

START = ('import pathlib, threading; from mtpret_jax.cpu import malloc;'
         'count_bytes = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;')
FREE_IN_THREADS = START + (
  'malloc.limit_arenas({arenas});'
  'bytearray(30 << 20); meet = threading.Barrier(4).wait; before = count_bytes();'  # arenas may keep twice that
  'fill = lambda: meet() and None or [bytearray(b"x" * 100_000) for _ in range(300)] and None;'
  'threads = [threading.Thread(target=fill) for _ in range(4)];'
  '[thread.start() for thread in threads]; [thread.join() for thread in threads];'
  'malloc.release_free_memory(); print(count_bytes() - before)')

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another C library')


def run(code, **environment):
  """The number that a program prints."""
  bare = {name: value for name, value in os.environ.items() if name not in ('GLIBC_TUNABLES', 'MALLOC_ARENA_MAX')}
  done = subprocess.run([sys.executable, '-c', code], env=bare | environment, stdout=subprocess.PIPE, text=True,
                        check=True, timeout=60)
  return int(done.stdout)


@glibc_only
def test_free_memory_between_used_blocks_is_released():
  freed = run(START + 'blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]; del blocks[::2];'
              'before = count_bytes(); malloc.release_free_memory(); print(before - count_bytes())')
  assert freed > 80_000_000


@glibc_only
def test_memory_that_threads_freed_is_released_with_one_arena_only():
  kept = [run(FREE_IN_THREADS.format(arenas=count)) for count in (1, 16)]
  assert kept[0] < 10_000_000 < 60_000_000 < kept[1]


@glibc_only
@pytest.mark.parametrize('name, value', [('GLIBC_TUNABLES', 'glibc.malloc.arena_max=16'), ('MALLOC_ARENA_MAX', '16')])
def test_a_number_of_arenas_in_the_environment_wins(name, value):
  assert run(FREE_IN_THREADS.format(arenas=1), **{name: value}) > 60_000_000
