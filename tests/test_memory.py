"""Large pages: who asks for them, and that the program is otherwise the same; freed memory that goes back."""
import os
import subprocess
import sys

import pytest

from mtpret_jax import memory

SHOW = ('import os, sys; from mtpret_jax import memory; memory.use_large_pages();'
        'print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))')


def start(*command, **environment):
  process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                             env={**os.environ, **environment})
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  return process.pid, said.split(maxsplit=1)


@pytest.mark.skipif(not memory.would_help(), reason='this system has large pages for all, or for none who ask')
def test_the_program_starts_anew_once_as_itself_with_the_same_arguments():
  process, (pid, rest) = start('-c', SHOW, '--one=a b', 'two', GLIBC_TUNABLES='')
  assert int(pid) == process
  assert rest == "['--one=a b', 'two'] glibc.malloc.hugetlb=1\n"
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES='glibc.malloc.arena_max=4')
  assert rest == '[] glibc.malloc.arena_max=4:glibc.malloc.hugetlb=1\n'


def test_who_has_chosen_keeps_the_choice():
  _, (_, rest) = start('-c', SHOW, GLIBC_TUNABLES='glibc.malloc.hugetlb=0')
  assert rest == '[] glibc.malloc.hugetlb=0\n'


@pytest.mark.parametrize(('text', 'library', 'helps'), [
  ('always [madvise] never', ('glibc', '2.36'), True), ('[always] madvise never', ('glibc', '2.36'), False),
  ('always madvise [never]', ('glibc', '2.36'), False), (None, ('glibc', '2.36'), False),
  ('always [madvise] never', ('glibc', '2.34'), False), ('always [madvise] never', ('', ''), False)])
def test_only_where_the_kernel_gives_them_to_those_who_ask(text, library, helps, tmp_path, monkeypatch):
  if text:
    (tmp_path / 'enabled').write_text(f'{text}\n')
  monkeypatch.setattr(memory.platform, 'libc_ver', lambda: library)
  assert memory.would_help(tmp_path / 'enabled') == helps


@pytest.mark.skipif(not memory.would_help(), reason='this system has large pages for all, or for none who ask')
def test_a_large_block_is_mapped_in_a_few_pages():
  code = ('import resource, sys; from mtpret_jax import memory; memory.use_large_pages();'
          'before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; block = bytearray(64 << 20);'
          'block[::4096] = b"x" * (64 << 8); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, ".")')
  counts = [int(start('-c', code, GLIBC_TUNABLES=f'glibc.malloc.hugetlb={choice}')[1][0]) for choice in (0, 1)]
  assert counts[0] >= 64 << 8 and counts[1] < counts[0] / 20


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_what_lies_free_between_what_is_used_goes_back():
  code = ('import pathlib; from mtpret_jax import memory;'
          'hold = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096;'
          'blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]; del blocks[::2]; before = hold();'
          'memory.give_back(); print(before - hold(), ".")')
  freed = int(start('-c', code)[1][0])
  assert freed > 80_000_000 or not memory.platform.libc_ver()[0]
