"""Large pages and an arena for each core: who asks for them, that the program is otherwise the same; freed memory that
goes back."""

import os
import subprocess
import sys

import pytest

from mtpret_jax.cpu import malloc

SHOW = ('import os, sys; from mtpret_jax.cpu import malloc; malloc.set_up();'
        'print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))')


def start(*command, **environment):
  process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, **environment})
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  return process.pid, said.split(maxsplit=1)


@pytest.mark.skipif(not malloc.list_tunables(), reason='another C library')
def test_the_program_starts_anew_once_as_itself_with_the_same_arguments():
  wanted = ':'.join(f'{name}={value}' for name, value in malloc.list_tunables().items())
  process, (pid, rest) = start('-c', SHOW, '--one=a b', 'two', GLIBC_TUNABLES='')
  assert int(pid) == process
  assert rest == f"['--one=a b', 'two'] {wanted}\n"
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES='glibc.malloc.tcache_count=4')
  assert rest == f'[] glibc.malloc.tcache_count=4:{wanted}\n'


def test_who_has_chosen_keeps_the_choice():
  chosen = 'glibc.malloc.hugetlb=0:glibc.malloc.arena_max=4'
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES=chosen)
  assert rest == f'[] {chosen}\n'


@pytest.mark.parametrize(('text', 'library', 'pages', 'arenas'), [
  ('always [madvise] never', ('glibc', '2.36'), True, True), ('[always] madvise never', ('glibc', '2.36'), False, True),
  ('always madvise [never]', ('glibc', '2.36'), False, True), (None, ('glibc', '2.36'), False, True),
  ('always [madvise] never', ('glibc', '2.34'), False, False), ('always [madvise] never', ('', ''), False, False)])
def test_only_where_the_library_can_and_the_kernel_gives_pages_to_those_who_ask(text, library, pages, arenas, tmp_path,
                                                                                monkeypatch):
  if text:
    (tmp_path / 'enabled').write_text(f'{text}\n')
  monkeypatch.setattr(malloc.platform, 'libc_ver', lambda: library)
  monkeypatch.setattr(malloc.os, 'sched_getaffinity', lambda _: range(3), raising=False)
  wanted = ({malloc.LARGE: 1} if pages else {}) | ({malloc.ARENAS: 3} if arenas else {})
  assert malloc.list_tunables(tmp_path / 'enabled') == wanted


@pytest.mark.skipif(malloc.LARGE not in malloc.list_tunables(), reason='large pages are for all, or for none who ask')
def test_a_large_block_is_mapped_in_a_few_pages():
  code = ('import resource, sys; from mtpret_jax.cpu import malloc; malloc.set_up();'
          'before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; block = bytearray(64 << 20);'
          'block[::4096] = b"x" * (64 << 8); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, ".")')
  counts = [int(start('-c', code, GLIBC_TUNABLES=f'glibc.malloc.hugetlb={choice}')[1][0]) for choice in (0, 1)]
  assert counts[0] >= 64 << 8 and counts[1] < counts[0] / 20


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_what_lies_free_between_what_is_used_goes_back():
  code = ('import pathlib; from mtpret_jax.cpu import malloc;'
          'hold = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;'
          'blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]; del blocks[::2]; before = hold();'
          'malloc.give_back(); print(before - hold(), ".")')
  freed = int(start('-c', code)[1][0])
  assert freed > 80_000_000 or not malloc.platform.libc_ver()[0]


@pytest.mark.skipif(not malloc.list_tunables(), reason='another C library')
def test_what_threads_have_freed_goes_back_with_one_arena_only():
  code = ('import pathlib, threading; from mtpret_jax.cpu import malloc; malloc.set_up();'
          'hold = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;'
          'bytearray(30 << 20); meet = threading.Barrier(4).wait; before = hold();'  # arenas may keep twice that
          'fill = lambda: meet() and None or [bytearray(b"x" * 100_000) for _ in range(300)] and None;'
          'threads = [threading.Thread(target=fill) for _ in range(4)];'
          '[thread.start() for thread in threads]; [thread.join() for thread in threads];'
          'malloc.give_back(); print(hold() - before, ".")')
  kept = [int(start('-c', code, GLIBC_TUNABLES=f'{malloc.ARENAS}={count}')[1][0]) for count in (1, 16)]
  assert kept[0] < 10_000_000 < 60_000_000 < kept[1]
