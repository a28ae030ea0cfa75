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
