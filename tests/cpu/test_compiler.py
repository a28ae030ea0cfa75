"""The compiler options for CPUs."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from configs import pretrain
from mtpret_jax import step
from mtpret_jax.cpu import compiler
from mtpret_jax.models import resnet
from mtpret_jax.objectives.moco import make_moco


@pytest.fixture
def usual_optimisation() -> Iterator[None]:
  """LLVM optimises as for users; tests/conftest.py has switched that off."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.mark.usefixtures('usual_optimisation')
def test_an_initial_state_that_is_compiled_quickly_is_the_same_to_rounding(monkeypatch):
  step.choose_options.cache_clear()
  options = step.choose_options(jax.devices()[0], runs_once=True)
  assert options == compiler.QUICK != step.choose_options(jax.devices()[0])
  config = pretrain.get_config('smoke')
  monkeypatch.setitem(resnet.LAYERS, config.trunk, (resnet.BasicBlock, (1, 0, 0, 0)))  # compiled in little time
  make = functools.partial(step.make_state, make_moco(config), step.make_optimiser(config.optimiser))
  plain, quick = (jax.jit(make, compiler_options=chosen)(jax.random.key(3), None) for chosen in ({}, options))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), plain, quick)
