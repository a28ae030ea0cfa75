"""A step moves what its task is about, and nothing else."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mtpret_jax.data.task_schedule import make_plan
from mtpret_jax.objectives import Objective
from mtpret_jax.preflight.hlo import list_collectives
from mtpret_jax.runtime import backend
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.step import (
  TPU_OPTIONS,
  add_pull,
  choose_options,
  compile_step,
  count_warmup_steps,
  init_state,
  make_optimiser,
  make_schedule,
  make_visit_schedule,
  place_state,
  shape_state,
)


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


def test_a_pull_is_added_to_the_gradient_and_measured_beside_it():
  kernel, pull = jnp.array([3.0, 4.0]), jnp.array([0.0, -1.0])
  grads, measures = add_pull({'trunk': kernel, 'hand': 100 * kernel}, {'trunk': pull})
  assert grads['trunk'].tolist() == [3, 3] and grads['hand'].tolist() == [300, 400]
  assert measures == {'pull_ratio': pytest.approx(1 / 5)}, 'heads are not pulled, so they do not count'
  assert add_pull({'trunk': 0 * kernel}, {'trunk': pull})[1] == {'pull_ratio': 0}, 'a batch without labels'
  assert add_pull({'trunk': kernel}, {})[1] == {}


def test_a_pull_adds_no_message_between_devices(optimiser):
  def init_large(rng, trunk=None):
    params = {'trunk': {'kernel': jnp.zeros((256, 256))}}
    return params, {'anchor': params['trunk']}

  def loss(task, params, carry, batch, step, rng):
    return jnp.square(batch['image'] @ params['trunk']['kernel'] - 1).mean(), (carry, {})

  def pull(params, carry):
    return {'trunk': jax.tree.map(jnp.subtract, params['trunk'], carry['anchor'])}

  mesh, batch = make_mesh(), {'image': jax.ShapeDtypeStruct((16, 256), jnp.float32)}
  found = {}
  for how, pulls in itertools.product(('replicated', 'fsdp'), (False, True)):
    objective = Objective(init_large, loss, {'task': ('trunk',)}, *[pull] * pulls)
    step = compile_step(objective, optimiser, lambda step: jnp.float32(0.1), 'task', mesh, 0,
                        placement=place_state(objective, optimiser, mesh, how))
    text = step.lower(shape_state(objective, optimiser), batch).compile().as_text()
    found[how, pulls] = sorted(list_collectives(text))
  assert found['replicated', True] == found['replicated', False] == [('all-reduce', 256 * 256 * 4)]
  scalars = [('all-reduce', 4)]  # the norm of the gradient; the two norms of the pull travel in the same message
  assert [size for size in found['fsdp', False] if size not in scalars] == [
    size for size in found['fsdp', True] if size != ('all-reduce', 12)]
  assert len(found['fsdp', True]) == len(found['fsdp', False])


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


def test_clipping_is_optaxs_over_all_parts_together_and_the_log_has_the_norm_before(optimiser, states):
  start, free, _ = states
  batch = {'image': np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)}
  live = {part: start.params[part] for part in ('trunk', 'hand')}
  grads = jax.grad(lambda params: loss('hand', params, {}, batch, 0, None)[0])(live)
  norm = float(optax.global_norm(grads))
  for clip in (norm / 4, norm * 4):
    step = compile_step(TWO_HEADS, optimiser, lambda step: jnp.float32(0.1), 'hand', make_mesh(), 0, clip=clip)
    state, measures = step(init_state(TWO_HEADS, optimiser, make_mesh(), 0), place_batch(batch, make_mesh()))
    assert float(measures['gradient']) == pytest.approx(norm, rel=1e-5)
    clipped, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())
    for part in live:  # weight decay comes after
      np.testing.assert_allclose(
        state.params[part]['kernel'],
        live[part]['kernel'] - 0.1 * (clipped[part]['kernel'] + 0.1 * live[part]['kernel']), rtol=1e-5)
  np.testing.assert_allclose(state.params['trunk']['kernel'], free.params['trunk']['kernel'], rtol=1e-6)


def test_a_part_learns_at_its_share_of_the_learning_rate(optimiser, states):
  start, full, _ = states
  objective = dataclasses.replace(TWO_HEADS, learning_rate_scales={'trunk': 0.25})
  batch = place_batch({'image': np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)}, make_mesh())
  step = compile_step(objective, optimiser, lambda step: jnp.float32(0.1), 'hand', make_mesh(), seed=0)
  state, _ = step(init_state(objective, optimiser, make_mesh(), 0), batch)
  for part, share in (('trunk', 0.25), ('hand', 1.0), ('chest', 1.0)):
    before, after = (np.asarray(one.params[part]['kernel']) for one in (start, full))
    np.testing.assert_allclose(state.params[part]['kernel'] - before, share * (after - before), rtol=1e-4, atol=1e-7)


def test_runs_that_differ_in_seed_and_learning_rates_share_one_compiled_program(optimiser):
  batch = place_batch({'image': np.zeros((16, 3), np.float32)}, make_mesh())
  programs = []
  for seed, peak, steps in ((0, 0.1, 20), (1, 0.3, 24)):
    config = ConfigDict({'optimiser': make_rates(learning_rate=peak), 'tasks': {'hand': {'learning_rates': ()}}})
    schedule = make_visit_schedule(config, make_plan({'hand': steps}, 1, 'cyclic', 0))
    np.testing.assert_allclose(schedule(np.arange(steps)), make_schedule(config.optimiser, steps)(np.arange(steps)),
                               rtol=1e-6)
    step = compile_step(TWO_HEADS, optimiser, schedule, 'hand', make_mesh(), seed)
    programs.append(step.lower(shape_state(TWO_HEADS, optimiser), batch).as_text())
  assert programs[0] == programs[1]


def make_rates(**fields):
  return ConfigDict(dict(learning_rate=0.5, final_learning_rate=0.0, warmup=0.0) | fields)


def test_the_cosine_ends_at_the_final_learning_rate_and_a_task_may_have_its_own_range():
  step = np.arange(20)
  for schedule, peak, final in ((make_schedule(make_rates(final_learning_rate=0.1), 20), 0.5, 0.1),
                                (make_schedule(make_rates(), 20, (0.3, 0.2)), 0.3, 0.2)):
    np.testing.assert_allclose(schedule(step), final + (peak - final) / 2 * (1 + np.cos(np.pi * step / 20)), rtol=1e-5)


@pytest.mark.parametrize('warmup, steps, counted', [
  (0.1, 2, 0), (0.125, 40, 5), (0.02, 2400, 48), (0.0075, 132_000, 990), (0.125, 20, 2), (1.0, 8, 8)])
def test_the_warm_up_is_a_share_and_never_longer_than_the_visit(warmup, steps, counted):
  assert count_warmup_steps(make_rates(warmup=warmup), steps) == counted
  rates = np.asarray(make_schedule(make_rates(warmup=warmup), steps)(np.arange(min(steps, 1000))))
  assert rates.argmax() == max(counted - 1, 0) and rates.max() == pytest.approx(0.5)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero():
  rate = make_schedule(make_rates(warmup=10 / 110), steps=110)
  assert rate(0) == pytest.approx(0.05) and rate(9) == pytest.approx(0.5) and rate(10) == pytest.approx(0.5)
  assert rate(60) == pytest.approx(0.25) and rate(110) == pytest.approx(0, abs=1e-7)
  assert all(rate(step) > rate(step + 1) for step in range(11, 109))


def test_only_programs_that_run_in_every_step_get_the_options_for_tpus(monkeypatch):
  class Chip:
    platform = 'tpu'
  monkeypatch.setattr('mtpret_jax.step.is_known', lambda *_: True)
  assert choose_options(Chip()) == TPU_OPTIONS and choose_options(Chip(), runs_once=True) == {}


def test_an_option_that_this_compiler_does_not_know_is_left_out(monkeypatch):
  for name, known in (('xla_llvm_disable_expensive_passes', True), ('xla_no_such_option', False)):
    monkeypatch.setitem(backend.OVERRIDES, 'compiler_options', lambda name=name: {name: True})
    choose_options.cache_clear()
    assert (name in choose_options(jax.devices()[0])) == known
  choose_options.cache_clear()
