"""A step moves what its task is about, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.objectives import Objective
from mtpret_jax.runtime import backend
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.step import choose_options, compile_step, init_state, make_optimiser, make_schedule


def init(rng, trunk=None):
  trunk, hand, chest = ({'kernel': kernel} for kernel in jax.random.normal(rng, (3, 3, 3)))
  return {'trunk': trunk, 'hand': hand, 'chest': chest}, {}


def loss(task, params, carry, batch, step, rng):
  out = batch['image'] @ params['trunk']['kernel'] @ params[task]['kernel']
  return jnp.square(out - 1).mean(), (carry, {})


TWO_HEADS = Objective(init, loss, {'hand': ('trunk', 'hand'), 'chest': ('trunk', 'chest')})


@pytest.fixture(scope='module')
def optimiser():
  return make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))


@pytest.fixture(scope='module')
def states(optimiser):
  """Before, after a step on hands, after a step on chests."""
  mesh = make_mesh()
  state = init_state(TWO_HEADS, optimiser, mesh, 0)
  states = [jax.device_get(state)]
  batch = place_batch({'image': np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)}, mesh)
  for task in ('hand', 'chest'):
    state, _ = compile_step(TWO_HEADS, optimiser, lambda step: jnp.float32(0.1), task, mesh, seed=0)(state, batch)
    states.append(jax.device_get(state))
  return states


def changes(before, after):
  return {part: any((old != new).any() for old, new in zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]),
                                                           strict=True)) for part in before}


def test_a_step_moves_only_the_live_parts_and_their_momentum(states):
  start, hand, chest = states
  for field in ('params', 'opt'):  # weight decay alone would move a head that saw no data
    assert changes(getattr(start, field), getattr(hand, field)) == {'trunk': True, 'hand': True, 'chest': False}
    assert changes(getattr(hand, field), getattr(chest, field)) == {'trunk': True, 'hand': False, 'chest': True}


def test_steps_are_counted(states):
  assert [int(state.step) for state in states] == [0, 1, 2]


def test_sgd_is_pytorchs_decay_then_momentum_then_learning_rate(optimiser):
  weights, momentum, state = 2.0, 0.0, optimiser.init(jnp.float32(2.0))
  ours = jnp.float32(weights)
  for gradient in (1.0, -3.0, 0.5):
    updates, state = optimiser.update(jnp.float32(gradient), state, ours)
    ours = ours - 0.1 * updates
    momentum = 0.9 * momentum + gradient + 0.1 * weights
    weights -= 0.1 * momentum
    assert ours == pytest.approx(weights, rel=1e-6)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero():
  rate = make_schedule(ConfigDict(dict(learning_rate=0.5, final_learning_rate=0.0, warmup=10 / 110)), steps=110)
  assert rate(0) == pytest.approx(0.05) and rate(9) == pytest.approx(0.5) and rate(10) == pytest.approx(0.5)
  assert rate(60) == pytest.approx(0.25) and rate(110) == pytest.approx(0, abs=1e-7)
  assert all(rate(step) > rate(step + 1) for step in range(11, 109))


def test_an_option_that_this_compiler_does_not_know_is_left_out(monkeypatch):
  for name, known in (('xla_llvm_disable_expensive_passes', True), ('xla_no_such_option', False)):
    monkeypatch.setitem(backend.OVERRIDES, 'compiler_options', lambda name=name: {name: True})
    choose_options.cache_clear()
    assert (name in choose_options(jax.devices()[0])) == known
  choose_options.cache_clear()
