"""A step that is not finite is skipped inside the compiled step, or stops the run; its images are logged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.objectives import Objective
from mtpret_jax.runtime import loss_guard
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.step import TrainState, compile_step, init_state, make_optimiser


def init(rng, trunk=None):
  return {'trunk': {'kernel': jax.random.normal(rng, (3, 2))}}, {'seen': jnp.zeros(())}


def compute_loss(task, params, carry, batch, step, rng):
  loss = jnp.square(batch['image'] @ params['trunk']['kernel'] - 1).mean()
  return loss, ({'seen': carry['seen'] + batch['image'].sum()}, {'loss': loss})


OBJECTIVE = Objective(init, compute_loss, {'hand': ('trunk',)})


def make_config(**fields):
  return ConfigDict(dict(on_nonfinite='stop', max_skips=2) | fields)


@pytest.fixture(scope='module')
def take():
  """take(config, factors) -> ([state before and after each step], [measures]): the batch of step n is times factors[n];
  all steps are on hands."""
  mesh = make_mesh()
  optimiser = make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))

  def take(config, factors):
    state = init_state(OBJECTIVE, optimiser, mesh, 0)
    guard = loss_guard.make_guard(config)
    step = compile_step(OBJECTIVE, optimiser, lambda step: jnp.float32(0.01), 'hand', mesh, 0, guard)
    images = np.random.default_rng(0).normal(size=(len(factors), 16, 3)).astype(np.float32)
    states, told = [jax.device_get(state)], []
    for image, factor in zip(images, factors, strict=True):
      state, measures = step(state, place_batch({'image': image * np.float32(factor)}, mesh))
      states.append(jax.device_get(state))
      told.append({name: float(value) for name, value in measures.items()})
    return states, told
  return take


def same(state, other):
  return all(np.array_equal(one, two) for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize('poison', [np.nan, np.inf, 1e30])
def test_a_bad_step_is_skipped_whole_but_for_the_count(take, poison):
  states, told = take(make_config(on_nonfinite='skip'), [1, poison, 1])
  assert not same(states[0].params, states[1].params)
  assert same(states[2].replace(step=states[1].step), states[1]) and int(states[2].step) == 2
  assert not np.isfinite(told[1]['loss'] + told[1]['gradient'])
  assert np.isfinite(told[2]['loss']) and not same(states[2].params, states[3].params)


def test_without_skipping_the_state_is_what_it_was_without_the_guard(take):
  states, _ = take(make_config(on_nonfinite='skip'), [1, 1])
  plain, _ = take(make_config(), [1, 1])
  assert loss_guard.make_guard(make_config()) is None and same(states[-1], plain[-1])


def check_steps(tmp_path, rows, **fields):
  check_step = loss_guard.make_step_check(make_config(**fields), tmp_path, lambda step: [('mura', f'image {step}')],
                                          lambda: 'The last good checkpoint is step 4 in checkpoints/4.')
  return [check_step(step, 'hand', {'gradient': 1.0} | row) for step, row in enumerate(rows)]


def test_a_bad_step_stops_the_run_and_its_images_are_written_down(tmp_path):
  with pytest.raises(loss_guard.Diverged, match=r'step 1 \(hand\) gave loss nan.*bad_batches.jsonl.*step 4 in'):
    check_steps(tmp_path, [{'loss': 1.0}, {'loss': np.nan}])
  line = json.loads((tmp_path / loss_guard.FILE).read_text())
  assert line == {'step': 1, 'task': 'hand', 'loss': 'nan', 'gradient': 1.0,
                  'images': [{'dataset': 'mura', 'image_id': 'image 1'}]}


def test_a_gradient_that_is_not_finite_stops_the_run_too(tmp_path):
  with pytest.raises(loss_guard.Diverged, match='gradient norm inf'):
    check_steps(tmp_path, [{'loss': 1.0, 'gradient': np.inf}])


def test_skipped_steps_do_not_count_and_too_many_in_a_row_stop_the_run(tmp_path):
  good, bad = {'loss': 1.0}, {'loss': np.inf}
  rows = [bad, bad, good, bad, bad, good]
  assert check_steps(tmp_path, rows, on_nonfinite='skip') == [row is good for row in rows]
  with pytest.raises(loss_guard.Diverged, match='step 2 .* after skipping 2 steps in a row'):
    check_steps(tmp_path, [bad] * 5, on_nonfinite='skip')


@pytest.mark.parametrize('loss, kept', [(np.nan, 1.0), (0.5, 2.0)])
def test_the_anchor_moves_at_the_first_step_of_a_visit_even_if_the_step_is_skipped(loss, kept):
  """It moves to weights from before the step, and only that step moves it."""
  old, new = (TrainState(jnp.int32(value), {'trunk': jnp.float32(value)},
                         {'anchor': jnp.float32(value), 'stats': jnp.float32(value)}, {}) for value in (1, 2))
  guard = loss_guard.make_guard(make_config(on_nonfinite='skip'))
  state = guard(old, new, {'loss': jnp.float32(loss), 'gradient': jnp.float32(1)})
  assert (state.step, state.carry['anchor']) == (2, 2.0)
  assert (state.params['trunk'], state.carry['stats']) == (kept, kept)
