"""What was compiled is found again, by the processors that can run it."""

import pathlib

import jax
import numpy as np
import pytest

from benchmarks import tiny
from mtpret_jax import compiled, rehearsal, train


@pytest.fixture
def cache():
  before = jax.config.jax_compilation_cache_dir
  yield lambda folder: jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_compilation_cache_dir', before)


def test_the_cache_lies_in_the_users_cache_folder(cache, tmp_path, monkeypatch):
  cache(None)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compiled.keep_compiled()
  assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / 'mtpret_jax'))


def test_a_folder_that_the_user_names_is_kept(cache, tmp_path):
  cache(str(tmp_path))
  compiled.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_processors_with_other_instructions_have_another_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(compiled, 'CPUINFO', tmp_path / 'cpuinfo')
  names = []
  for able in ('fpu sse avx', 'fpu sse avx', 'fpu sse'):
    compiled.CPUINFO.write_text(f'model name : one\nflags : {able}\n')
    names.append(compiled.name_cpu())
  assert names[0] == names[1] != names[2]


@pytest.mark.parametrize('stage', ['pretrain', 'continual'])
def test_steps_that_were_compiled_while_data_was_prepared_are_not_compiled_again(stage, prepared, one_block, tmp_path):
  """All but that of bone age, whose head holds the mean age. The run ends as one that compiled them itself."""
  def count():
    return len(list(pathlib.Path(jax.config.jax_compilation_cache_dir).glob('jit_step-*-cache')))

  config, before = tiny.get_config(stage), count()
  config.seed = 7  # no other test compiles these
  config.data.dir = str(tmp_path)
  with rehearsal.compiling(config) as steps:
    pass
  ahead = count()
  assert ahead == before + 1 == before + len(steps) and not rehearsal.is_compiling()
  config.data.dir = str(prepared)
  state = train.train(config, tmp_path / 'run', steps)
  assert count() == ahead + (stage == 'continual')
  with rehearsal.compiling(config) as steps:
    assert not rehearsal.is_compiling() and not steps, 'all is prepared'
  alone = train.train(config, tmp_path / 'alone', steps)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(alone))
