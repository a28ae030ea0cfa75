"""Averaged weights follow the weights of each part that a step trains, and are what predicts; flips at test time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from mtpret_jax.objectives import Objective, multitask
from mtpret_jax.runtime import checkpoint
from mtpret_jax.runtime.averaged_weights import use_average
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.step import compile_step, init_state, make_optimiser, place_state, shape_state
from mtpret_jax.tasks import find_kind

EMA = 0.25
TASKS = {'hand': None, 'chest': None}
PARTS = {'hand': ('trunk', 'hand'), 'chest': ('trunk', 'chest'), 'joint': ('trunk', 'hand', 'chest')}


def make_config(statistics='per_task', ema=EMA):
  return ConfigDict(dict(statistics=statistics, optimiser=dict(ema=ema)))


def make_trees(number, owners=('hand', 'chest')):
  leaf = {'kernel': jnp.full(3, float(number))}
  params = {part: leaf for part in ('trunk', 'hand', 'chest')}
  return params, {'stats': {'trunk': {owner: leaf for owner in owners}, 'hand': leaf, 'chest': {}}}


def follow(values, ema=EMA):
  """The average of a part that starts at 0 and has these values after its steps."""
  average = 0.0
  for number, value in enumerate(values, start=1):
    average += (1 - min(ema, (1 + number) / (10 + number))) * (value - average)
  return pytest.approx(average, rel=1e-6)


def run_steps(order, config, owners=('hand', 'chest')):
  params, carry = make_trees(0, owners)
  carry = multitask.add_average(params, carry)
  for number, task in enumerate(order, start=1):
    params, stats = make_trees(number, owners)
    carry = multitask.update_average(config, TASKS, PARTS, task, params, carry | stats)
  return carry['average']


def test_each_part_is_averaged_over_the_steps_that_train_it():
  average = run_steps(['hand', 'chest', 'hand', 'hand'], make_config())
  for part, steps in (('trunk', [1, 2, 3, 4]), ('hand', [1, 3, 4]), ('chest', [2])):
    assert average['params'][part]['kernel'][0] == follow(steps) and average['updates'][part] == len(steps)
  assert average['stats']['hand']['kernel'][0] == average['stats']['trunk']['hand']['kernel'][0] == follow([1, 3, 4])
  assert average['stats']['trunk']['chest']['kernel'][0] == follow([2])


def test_a_joint_step_and_shared_statistics_are_averaged_too():
  average = run_steps(['joint', 'joint'], make_config())
  assert average['params']['chest']['kernel'][0] == average['stats']['trunk']['chest']['kernel'][0] == follow([1, 2])
  average = run_steps(['hand', 'chest'], make_config('shared'), ('all',))
  assert average['stats']['trunk']['all']['kernel'][0] == follow([1, 2])


def test_a_large_share_is_reached_slowly():
  average = run_steps(['hand'] * 5, make_config(ema=0.999))
  assert average['params']['hand']['kernel'][0] == follow([1, 2, 3, 4, 5], ema=0.999)
  assert average['params']['hand']['kernel'][0] > 3.5, 'random weights are soon forgotten'


def init_toy(rng, weights=None):
  params = {'trunk': {'kernel': jax.random.normal(rng, (256, 256))}, 'hand': {'kernel': jnp.ones((256, 1))}}
  return params, multitask.add_average(params, {'stats': {'trunk': {'hand': {}}, 'hand': {}}})


def compute_toy_loss(task, params, carry, batch, step, rng):
  loss = jnp.square(batch['image'] @ params['trunk']['kernel'] @ params[task]['kernel'] - 1).mean()
  return loss, (carry | {'stats': carry['stats']}, {'loss': loss})


def average_toy(task, params, carry):
  return multitask.update_average(make_config(), {'hand': None}, {'hand': ('trunk', 'hand')}, task, params, carry)


TOY = Objective(init_toy, compute_toy_loss, {'hand': ('trunk', 'hand')}, average=average_toy)


@pytest.mark.parametrize('how', ['replicated', 'fsdp'])
def test_a_step_averages_the_weights_after_its_update_and_trains_as_without(how):
  mesh, optimiser = make_mesh(), make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))
  batch = place_batch({'image': np.random.default_rng(0).normal(size=(16, 256)).astype(np.float32)}, mesh)
  found = {}
  for objective in (TOY, dataclasses.replace(TOY, average=None)):
    placement = place_state(objective, optimiser, mesh, how)
    state = init_state(objective, optimiser, mesh, 0, placement=placement)
    before = jax.device_get(state)
    step = compile_step(objective, optimiser, lambda step: jnp.float32(1e-3), 'hand', mesh, 0, placement=placement)
    state, _ = step(state, batch)
    found[objective.average is not None] = jax.device_get(state)
  np.testing.assert_array_equal(found[True].params['trunk']['kernel'], found[False].params['trunk']['kernel'])
  share = 1 - min(EMA, 2 / 11)
  start, after = before.params['trunk']['kernel'], found[True].params['trunk']['kernel']
  np.testing.assert_allclose(found[True].carry['average']['params']['trunk']['kernel'], start + share * (after - start),
                             rtol=1e-5, atol=1e-6)


def test_a_sharded_average_is_not_gathered_for_the_step():
  mesh, optimiser = make_mesh(), make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))
  placement = place_state(TOY, optimiser, mesh, 'fsdp')
  assert not placement.carry['average']['params']['trunk']['kernel'].is_fully_replicated
  step = compile_step(TOY, optimiser, lambda step: jnp.float32(1e-3), 'hand', mesh, 0, placement=placement)
  text = step.lower(shape_state(TOY, optimiser), {'image': jax.ShapeDtypeStruct((16, 256), jnp.float32)}
                    ).compile().as_text()
  assert text.count('all-gather(') == 1, 'the weights, and not their average'


def test_what_is_read_from_a_checkpoint_is_the_average_and_a_run_resumes_with_both(tmp_path):
  params, carry = make_trees(1)
  state = {'step': jnp.int32(7), 'params': params, 'carry': multitask.add_average(*make_trees(5)) | {'anchor': params}}
  with checkpoint.open_checkpoints(tmp_path, 1) as checkpoints:
    checkpoint.save(checkpoints, state, 7, {'seed': 0}, wait=True)
    resumed = checkpoint.restore(checkpoints, state, {'seed': 0})
  jax.tree.map(np.testing.assert_array_equal, resumed, state)
  read, _ = checkpoint.read_state(tmp_path)
  assert read['params']['trunk']['kernel'].tolist() == [5, 5, 5] and set(read['carry']) == {'stats', 'anchor'}
  assert read['carry']['stats']['hand']['kernel'].tolist() == [5, 5, 5]
  assert use_average(params, carry) == (params, carry), 'a run without an average'


def test_a_run_stopped_in_the_middle_ends_with_the_average_of_one_that_was_not(tmp_path):
  mesh, optimiser = make_mesh(), make_optimiser(ConfigDict(dict(kind='sgd', momentum=0.9, weight_decay=0.1)))
  step = compile_step(TOY, optimiser, lambda step: jnp.float32(1e-3), 'hand', mesh, 0)
  batches = np.random.default_rng(0).normal(size=(4, 16, 256)).astype(np.float32)

  def take_steps(state, first, end):
    for image in batches[first:end]:
      state, _ = step(state, place_batch({'image': image}, mesh))
    return state
  start = functools.partial(init_state, TOY, optimiser, mesh, 0)
  whole = jax.device_get(take_steps(start(), 0, 4))
  with checkpoint.open_checkpoints(tmp_path, 1) as checkpoints:
    checkpoint.save(checkpoints, take_steps(start(), 0, 2), 2, {}, wait=True)
    resumed = checkpoint.restore(checkpoints, start(), {})
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(take_steps(resumed, 2, 4)), whole)
  assert whole.carry['average']['updates']['trunk'] == 4


# Flips at test time


@pytest.fixture(scope='module')
def trunk():
  LAYERS['stem'] = (BasicBlock, (0, 0, 0, 0))
  yield
  del LAYERS['stem']


def test_a_flipped_prediction_is_the_mean_of_both_images_with_the_sides_exchanged(trunk):
  about = {'relation': 'independent', 'findings': ['left mass', 'right mass', 'hernia']}
  model = find_kind('classification').make_model(about, None)
  config = ConfigDict(dict(trunk='stem', dtype='float32', statistics='per_task', memory=dict(anchor='none'),
                           tasks={'chest': dict(augment=common.labelled_augment(16))}))
  params, stats = multitask.split_weights(multitask.build_modules(config, {'chest': model}, jax.random.key(0)))
  stats['trunk'] = {'chest': stats['trunk']}
  image = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)

  def predict(image, **fields):
    call = multitask.make_predict(ConfigDict({**config, **fields}), 'chest', model)
    return np.asarray(jax.jit(call)(params, stats, {'image': image})[1]['score'])
  plain, mirrored = predict(image), predict(image[:, :, ::-1])
  assert np.abs(plain - mirrored).max() > 1e-4
  np.testing.assert_allclose(predict(image, flips=True), (plain + mirrored[:, [1, 0, 2]]) / 2, rtol=1e-5)
  np.testing.assert_array_equal(predict(image, flips=False), plain)


def test_a_flipped_mask_is_mirrored_back():
  about = {'mask': ['background', 'left lung', 'right lung']}
  head = ConfigDict(dict(output_stride=32, width=8, dilations=(1,), dice=0.0))
  model = find_kind('segmentation').make_model(about, head)
  logits = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
  seen_in_the_mirror = 3 * logits[:, :, ::-1][..., [0, 2, 1]]  # as a network that sees the same would say, more surely
  np.testing.assert_array_equal(predict_both(model, {'logits': logits}, {'logits': seen_in_the_mirror})['mask'],
                                logits.argmax(-1))
  other = np.roll(logits, 1, axis=-1) * 5
  np.testing.assert_array_equal(
    predict_both(model, {'logits': logits}, {'logits': other})['mask'],
    (jax.nn.softmax(logits) + jax.nn.softmax(other)[:, :, ::-1][..., np.array([0, 2, 1])]).argmax(-1))


def predict_both(model, outputs, mirrored):
  return model.decide(model.merge([model.predict(outputs), model.unmirror(model.predict(mirrored))]))


def test_a_flipped_value_is_the_mean():
  model = find_kind('regression').make_model({}, ConfigDict(dict(mean=100.0, deviation=10.0)))
  assert predict_both(model, {'z_score': np.float32([[1.0]])}, {'z_score': np.float32([[3.0]])})['value'] == 120


def test_boxes_of_the_mirror_image_are_flipped_back_and_fused_with_their_side_exchanged():
  model = find_kind('detection').make_model({'box_classes': ['left hip', 'right hip', 'nail']}, common.faster_rcnn(96))
  plain = {'boxes': np.float32([[[.1, .6, .5, .9], [0, 0, 0, 0]]]), 'class_id': np.int32([[0, -1]]),
           'score': np.float32([[.75, 0]])}
  mirrored = {'boxes': np.float32([[[.1, .1, .5, .4], [.5, 0, .75, .25]]]), 'class_id': np.int32([[1, 2]]),
              'score': np.float32([[.25, .5]])}
  both = predict_both(model, plain, mirrored)
  np.testing.assert_allclose(both['boxes'], [[[.1, .6, .5, .9], [.5, .75, .75, 1]]], rtol=1e-6)
  assert both['class_id'].tolist() == [[0, 2]] and both['score'].tolist() == [[.5, .25]]
