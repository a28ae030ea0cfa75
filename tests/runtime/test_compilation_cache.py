"""Compiled steps are cached per instruction set: a program for another one would crash."""

import jax
import pytest

from mtpret_jax.runtime import compilation_cache


@pytest.fixture
def cache():
  before = jax.config.jax_compilation_cache_dir
  yield lambda folder: jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_compilation_cache_dir', before)


def test_the_cache_is_in_the_users_cache_folder(cache, tmp_path, monkeypatch):
  cache(None)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compilation_cache.enable_cache()
  assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / 'mtpret_jax'))


def test_a_folder_that_the_user_names_is_kept(cache, tmp_path):
  cache(str(tmp_path))
  compilation_cache.enable_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_processors_with_another_instruction_set_have_another_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(compilation_cache, 'CPUINFO', tmp_path / 'cpuinfo')
  names = []
  for able in ('fpu sse avx', 'fpu sse avx', 'fpu sse'):
    compilation_cache.CPUINFO.write_text(f'model name : one\nflags : {able}\n')
    names.append(compilation_cache.cpu_id())
  assert names[0] == names[1] != names[2]


@pytest.mark.parametrize('variables, reason', [
  ({}, 'there is no home folder'), ({'XDG_CACHE_HOME': 'relative'}, 'there is no home folder'),
  ({'HOME': '/proc/none'}, '/proc/none/.cache/mtpret_jax/')])
def test_without_a_folder_that_can_be_written_nothing_is_cached_and_a_line_says_so(
    variables, reason, cache, monkeypatch, caplog):
  """As in a container whose user is neither in the list of users nor has a HOME."""
  for name in ('HOME', 'XDG_CACHE_HOME'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr('pwd.getpwuid', lambda uid: {}[uid])
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  cache(None)
  compilation_cache.enable_cache()
  assert jax.config.jax_compilation_cache_dir is None
  line, = caplog.messages
  assert reason in line and 'JAX_COMPILATION_CACHE_DIR=<folder>' in line
