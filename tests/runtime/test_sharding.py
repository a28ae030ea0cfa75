"""A state that is cut over the devices takes the steps of a whole one, and each device holds less of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from mtpret_jax import stages
from mtpret_jax.models import resnet
from mtpret_jax.objectives import Objective
from mtpret_jax.runtime.sharding import gather_state, make_mesh, place_batch
from mtpret_jax.step import compile_step, init_state, make_optimiser, place_state
from tests.support import small_runs
from tests.support.changed import change
from tests.support.compare_runs import compare_runs
from tests.support.interrupted import stop_at
from tests.support.smooth_runs import average_windows

SIDES = (64, 512, 96)  # of two layers: 64 x 512 and 512 x 96


def init(rng, trunk=None):
  one, two = (jax.random.normal(rng, shape) / 20 for shape in zip(SIDES[:-1], SIDES[1:], strict=True))
  trunk = {'one': one, 'two': two, 'bias': jnp.zeros(SIDES[-1])}
  return {'trunk': trunk}, {'key_encoder': {'trunk': dict(trunk)}, 'queue': jnp.ones((1024, 32))}


def loss(task, params, carry, batch, step, rng):
  trunk = params['trunk']
  out = jnp.tanh(batch['image'] @ trunk['one']) @ trunk['two'] + trunk['bias'][None]
  slow = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * jax.lax.stop_gradient(new), carry['key_encoder'], params)
  return jnp.square(out - 1).mean(), (carry | {'key_encoder': slow}, {})


LAYERS_TWO = Objective(init, loss, {'task': ('trunk',)})


def take_steps(how):
  """(the state of three steps, bytes of it on each device)."""
  mesh, optimiser = make_mesh(), make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))
  placement = place_state(LAYERS_TWO, optimiser, mesh, how)
  state = init_state(LAYERS_TWO, optimiser, mesh, 0, placement=placement)
  step = compile_step(LAYERS_TWO, optimiser, lambda step: jnp.float32(0.1), 'task', mesh, 0, placement=placement)
  for number in range(3):
    rows = np.random.default_rng(number).normal(size=(16, SIDES[0])).astype(np.float32)
    state, measures = step(state, place_batch({'image': rows}, mesh))
  held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves((state.params, state.opt)))
  return jax.device_get(gather_state(state)), held, placement


@pytest.fixture(scope='module')
def whole():
  return take_steps('replicated')


@pytest.fixture(scope='module')
def cut():
  return take_steps('fsdp')


def test_the_steps_are_the_same(whole, cut):
  jax.tree.map(lambda one, other: np.testing.assert_allclose(other, one, rtol=0, atol=1e-6), whole[0], cut[0])


def test_each_device_holds_an_eighth_of_the_weights_and_their_momentum(whole, cut):
  bias = 2 * SIDES[-1] * 4  # stays whole, with its momentum
  assert cut[1] == (whole[1] - bias) / 8 + bias


def test_weights_are_cut_along_their_longest_side_and_the_queue_is_not(cut):
  *_, placement = cut
  trunk = placement.params['trunk']
  assert (trunk['one'].spec, trunk['two'].spec, trunk['bias'].spec) == (P(None, 'data'), P('data'), P())
  assert placement.carry['key_encoder']['trunk']['one'].spec == P(None, 'data')
  assert placement.carry['queue'].spec == P()


@pytest.mark.parametrize('stage', ['pretrain', pytest.param('continual', marks=pytest.mark.slow)])
def test_a_cut_run_that_is_stopped_on_the_way_ends_as_a_whole_one(
    stage, prepared, one_block, tmp_path, monkeypatch):
  """But for the order in which floats are added. Its last checkpoint is read by a run that does not cut."""
  monkeypatch.setattr(jax.nn, 'relu', jax.nn.softplus)  # why: see tests/support/smooth_runs.py
  monkeypatch.setattr(resnet, 'pool_max', average_windows)
  config = small_runs.get_config(stage)
  config.data.dir = str(prepared)
  stages.train_stage(config, tmp_path / 'whole')
  cut = change(config, sharding='fsdp')
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, 6)
    stages.train_stage(cut, tmp_path / 'cut')
  state = stages.train_stage(cut, tmp_path / 'cut')
  assert compare_runs(tmp_path / 'cut', tmp_path / 'whole') == ''
  again = stages.train_stage(config, tmp_path / 'cut')
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
