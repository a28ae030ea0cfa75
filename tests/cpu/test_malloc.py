"""Large pages and an arena for each core: where they are asked for, that the restarted program is otherwise the same,
and that freed memory returns to the kernel."""

import os
import subprocess
import sys

import pytest

from mtpret_jax.cpu import malloc

SHOW = ('import os, sys; from mtpret_jax.cpu import malloc; malloc.restart_with_tunables();'
        'print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))')


def start(*command, **environment):
  process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, **environment})
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  return process.pid, output.split(maxsplit=1)


@pytest.mark.skipif(not malloc.list_tunables(), reason='another C library')
def test_the_program_restarts_once_in_the_same_process_with_the_same_arguments():
  wanted = ':'.join(f'{name}={value}' for name, value in malloc.list_tunables().items())
  process, (pid, rest) = start('-c', SHOW, '--one=a b', 'two', GLIBC_TUNABLES='')
  assert int(pid) == process
  assert rest == f"['--one=a b', 'two'] {wanted}\n"
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES='glibc.malloc.tcache_count=4')
  assert rest == f'[] glibc.malloc.tcache_count=4:{wanted}\n'


def test_tunables_that_the_user_has_set_stay():
  chosen = 'glibc.malloc.hugetlb=0:glibc.malloc.arena_max=4'
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES=chosen)
  assert rest == f'[] {chosen}\n'


@pytest.mark.parametrize(('text', 'library', 'pages', 'arenas'), [
  ('always [madvise] never', ('glibc', '2.36'), True, True), ('[always] madvise never', ('glibc', '2.36'), False, True),
  ('always madvise [never]', ('glibc', '2.36'), False, True), (None, ('glibc', '2.36'), False, True),
  ('always [madvise] never', ('glibc', '2.34'), False, False), ('always [madvise] never', ('', ''), False, False)])
def test_tunables_are_set_only_where_library_and_kernel_support_them(text, library, pages, arenas, tmp_path,
                                                                                monkeypatch):
  if text:
    (tmp_path / 'enabled').write_text(f'{text}\n')
  monkeypatch.setattr(malloc.platform, 'libc_ver', lambda: library)
  monkeypatch.setattr(malloc.os, 'sched_getaffinity', lambda _: range(3), raising=False)
  wanted = ({malloc.LARGE_PAGES: 1} if pages else {}) | ({malloc.ARENAS: 3} if arenas else {})
  assert malloc.list_tunables(tmp_path / 'enabled') == wanted


@pytest.mark.skipif(malloc.LARGE_PAGES not in malloc.list_tunables(), reason='the kernel does not give pages on demand')
def test_a_large_block_is_mapped_in_a_few_pages():
  code = ('import resource, sys; from mtpret_jax.cpu import malloc; malloc.restart_with_tunables();'
          'before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; block = bytearray(64 << 20);'
          'block[::4096] = b"x" * (64 << 8); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, ".")')
  counts = [int(start('-c', code, GLIBC_TUNABLES=f'glibc.malloc.hugetlb={choice}')[1][0]) for choice in (0, 1)]
  assert counts[0] >= 64 << 8 and counts[1] < counts[0] / 20


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_free_memory_between_used_blocks_is_released():
  code = ('import pathlib; from mtpret_jax.cpu import malloc;'
          'hold = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;'
          'blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]; del blocks[::2]; before = hold();'
          'malloc.release_free_memory(); print(before - hold(), ".")')
  freed = int(start('-c', code)[1][0])
  assert freed > 80_000_000 or not malloc.platform.libc_ver()[0]


@pytest.mark.skipif(not malloc.list_tunables(), reason='another C library')
def test_memory_that_threads_freed_is_released_with_one_arena_only():
  code = ('import pathlib, threading; from mtpret_jax.cpu import malloc; malloc.restart_with_tunables();'
          'hold = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;'
          'bytearray(30 << 20); meet = threading.Barrier(4).wait; before = hold();'  # arenas may keep twice that
          'fill = lambda: meet() and None or [bytearray(b"x" * 100_000) for _ in range(300)] and None;'
          'threads = [threading.Thread(target=fill) for _ in range(4)];'
          '[thread.start() for thread in threads]; [thread.join() for thread in threads];'
          'malloc.release_free_memory(); print(hold() - before, ".")')
  kept = [int(start('-c', code, GLIBC_TUNABLES=f'{malloc.ARENAS}={count}')[1][0]) for count in (1, 16)]
  assert kept[0] < 10_000_000 < 60_000_000 < kept[1]
