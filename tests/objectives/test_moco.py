"""A step of stage 1 is MoCo's: compared with the published algorithm in PyTorch; its queue, negatives and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.data.shuffle_bn import shuffle_keys, unshuffle_keys
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from mtpret_jax.models.torchvision_weights import import_trunk
from mtpret_jax.objectives.moco import compute_loss, encode, gather_keys, make_moco
from mtpret_jax.preflight.hlo import list_collectives
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.step import compile_step, init_state, make_optimiser, shape_state
from tests.reference import draw
from tests.reference import moco_setting as setting
from tests.support.drawn import make_state_dict

TOLERANCE = 1e-4  # relative, of the loss of each step, f32

STILL = dict(size=setting.SIZE, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, blur=0.0, blur_sigma=(0.1, 1.0),
             jitter=0.0, brightness=0.4, contrast=0.4, rotation=0.0)  # a view is the image itself
LIVELY = dict(size=24, crop_area=(0.2, 1.0), crop_ratio=(0.75, 1.33), flip=0.5, blur=0.5, blur_sigma=(0.1, 1.0),
              jitter=0.8, brightness=0.4, contrast=0.4, rotation=0.0)


def make_config(trunk, augment, positives=(), **fields):
  s = setting
  return ConfigDict(dict(
    trunk=trunk, dtype='float32', augment=augment,
    moco=dict(dim=s.DIM, queue=s.QUEUE, temperature=s.TEMPERATURE, momentum=s.MOMENTUM, group=s.GROUP,
              shuffle_groups=s.SHUFFLE_GROUPS, **dict(negatives='queue', same_source=False, symmetric=False) | fields),
    data=dict(patient_positives=positives),
    optimiser=dict(kind='sgd', momentum=s.SGD_MOMENTUM, weight_decay=s.WEIGHT_DECAY)))


PATIENTS = np.arange(setting.BATCH, dtype=np.int32) % 12


def make_batch(step, size=setting.SIZE):
  query, key = (images[:, :size, :size] for images in setting.images(step))
  return {'query': query, 'key': shuffle_keys(key, setting.GROUP, setting.SHUFFLE_GROUPS),
          'source': np.arange(setting.BATCH, dtype=np.int32) % 3}


def follow_setting():
  """Our ten losses from the random weights of `moco_setting.py`, on one device."""
  config, mesh = make_config('resnet18', STILL), make_mesh(jax.devices()[:1])
  objective, optimiser = make_moco(config), make_optimiser(config.optimiser)
  state = init_state(objective, optimiser, mesh, 0, {
    'trunk': import_trunk(make_state_dict('resnet18', channels=1), 'resnet18')})
  linear = {name: {'kernel': draw.weight(f'{torch}.weight', (out, 512)).T, 'bias': draw.weight(f'{torch}.bias', (out,))}
            for name, torch, out in (('hidden', 'fc.0', 512), ('out', 'fc.2', setting.DIM))}
  params = state.params | {'projector': linear}
  key_encoder = jax.tree.map(jnp.array, params)  # a copy: the step donates the state, no buffer may be in it twice
  state = state.replace(params=params, carry=state.carry | {'key_encoder': key_encoder, 'queue': setting.first_queue()})
  step = compile_step(objective, optimiser, lambda step: jnp.float32(setting.LEARNING_RATE), 'moco', mesh, seed=0)
  losses = []
  for number in range(setting.STEPS):
    state, measures = step(state, place_batch(make_batch(number), mesh))
    losses.append(float(measures['loss']))
  return np.array(losses)


@pytest.fixture(scope='module')
def ten_losses():
  return follow_setting()


def test_ten_steps_follow_the_published_algorithm(ten_losses):
  with np.load(setting.FIXTURE) as recorded:
    np.testing.assert_allclose(ten_losses, recorded['losses'], rtol=TOLERANCE)


@pytest.mark.reference
def test_ten_steps_of_the_published_algorithm_in_torch_give_the_same_losses(ten_losses):
  pytest.importorskip('torchvision')
  from tests.reference import moco_torch
  theirs = moco_torch.ten_losses()
  worst = np.abs(ten_losses / theirs - 1).max()
  print(f'largest relative difference of ten losses: {worst:.1e}; losses {theirs.round(3)}')
  assert worst <= TOLERANCE


@pytest.fixture(scope='module')
def shallow():
  """A trunk of one block, which compiles quickly."""
  LAYERS['shallow'] = (BasicBlock, (0, 1, 0, 0))
  yield 'shallow'
  del LAYERS['shallow']


def take_steps(trunk, devices, steps=3, owners=(), messages=None, **fields):
  """The state before and after each step with random views, and each step's measures. `owners` are further fields of a
  batch. The list `messages` gets the (collective, bytes) of a step."""
  config, mesh = make_config(trunk, LIVELY, **fields), make_mesh(jax.devices()[:devices])
  objective, optimiser = make_moco(config), make_optimiser(config.optimiser)
  state = init_state(objective, optimiser, mesh, 0)
  step = compile_step(objective, optimiser, lambda step: jnp.float32(setting.LEARNING_RATE), 'moco', mesh, seed=0)
  states, measures = [jax.device_get(state)], []
  if messages is not None:
    compiled = step.lower(state, place_batch(make_batch(0, size=32) | dict(owners), mesh)).compile()
    messages += list_collectives(compiled.as_text())
  for number in range(steps):
    state, measured = step(state, place_batch(make_batch(number, size=32) | dict(owners), mesh))
    states.append(jax.device_get(state))
    measures.append(jax.device_get(measured))
  return states, measures


@pytest.fixture(scope='module')
def on_one_device(shallow):
  return take_steps(shallow, devices=1)


@pytest.fixture(scope='module')
def on_eight_devices(shallow):
  messages = []
  return *take_steps(shallow, devices=8, steps=1, messages=messages), messages


def test_a_step_has_one_all_gather_for_the_keys_and_one_all_reduce_for_the_gradients(on_eight_devices):
  *_, messages = on_eight_devices
  assert sorted(kind for kind, _ in messages) == ['all-gather', 'all-reduce']
  assert dict(messages)['all-gather'] == setting.BATCH * (setting.DIM + 1) * 4, 'embeddings and sources, f32'


def test_eight_devices_take_the_same_step_as_one(on_one_device, on_eight_devices):
  (first, after, *_), (measures, *_) = on_one_device
  (first_8, after_8, *_), (measures_8, *_), _ = on_eight_devices
  jax.tree.map(np.testing.assert_array_equal, first, first_8)
  for name, value in measures.items():
    np.testing.assert_allclose(measures_8[name], value, rtol=1e-5, err_msg=name)
  jax.tree.map(lambda one, eight: np.testing.assert_allclose(eight, one, rtol=0, atol=2e-5 * np.abs(one).max()),
               after, after_8)


def test_the_oldest_keys_leave_the_queue_first(on_one_device):
  states, _ = on_one_device
  queues = [state.carry['queue'] for state in states]
  half = setting.BATCH  # the queue holds two batches
  changed = [(before != after).any(1) for before, after in zip(queues[:-1], queues[1:], strict=True)]
  for number, rows in enumerate(changed):
    newest = slice(0, half) if number % 2 == 0 else slice(half, 2 * half)
    assert rows[newest].all() and rows.sum() == half, f'step {number} replaces the oldest batch only'


def test_queue_holds_unit_vectors_and_their_sources(on_one_device):
  states, _ = on_one_device
  carry = states[2].carry
  np.testing.assert_allclose(np.linalg.norm(carry['queue'], axis=1), 1, rtol=1e-5)
  np.testing.assert_array_equal(carry['queue_source'], np.tile(make_batch(0)['source'], 2))
  assert (states[0].carry['queue_source'] == -1).all()


def test_key_encoder_moves_towards_the_weights_from_before_the_step(on_one_device):
  states, _ = on_one_device
  for before, after in zip(states[:-1], states[1:], strict=True):
    expected = jax.tree.map(lambda key, query: 0.9 * key + 0.1 * query, before.carry['key_encoder'], before.params)
    jax.tree.map(lambda ours, wanted: np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-7),
                 after.carry['key_encoder'], expected)


def test_every_step_draws_new_views(on_one_device):
  _, measures = on_one_device
  assert len({float(measured['loss']) for measured in measures}) == len(measures)


@pytest.mark.parametrize('age, over_queue', [(0.0, 0.0), (0.5, 1.0)])
def test_accuracy_within_the_batch_is_not_raised_by_the_age_of_the_keys(age, over_queue):
  """Queries that hold nothing of their image: the queue has them all, unless its keys are older (another direction)."""
  rng = np.random.default_rng(0)

  def make_unit(rows, towards):
    z = np.abs(rng.normal(size=(rows, setting.DIM))) * 0.01 + np.eye(setting.DIM)[towards]
    return jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), jnp.float32)
  keys = make_unit(setting.BATCH, 0)
  queries = jnp.roll(keys, 1, axis=0).at[0].set(keys[0])  # the first query is its key, every other one its neighbour's
  queue = make_unit(setting.QUEUE, 1) if age else jnp.tile(queries, (setting.QUEUE // setting.BATCH, 1))
  encoded = iter([jnp.asarray(shuffle_keys(np.asarray(keys), setting.GROUP, setting.SHUFFLE_GROUPS)), queries])
  carry = {'key_encoder': {}, 'key_stats': {}, 'stats': {}, 'queue': queue,
           'queue_source': jnp.zeros(setting.QUEUE, jnp.int32)}
  compute = jax.jit(lambda carry, batch: compute_loss(
    make_config('resnet18', LIVELY), lambda *_: (next(encoded), {}), 'moco', {}, carry, batch, 0, jax.random.key(0)))
  _, (_, measures) = compute(carry, make_batch(0, size=32))
  assert measures['accuracy_batch'] == pytest.approx(1 / setting.BATCH), 'one query of the batch is closest to its key'
  assert measures['accuracy'] == over_queue


def test_same_source_ignores_keys_of_other_sources(shallow, on_one_device):
  objective = make_moco(make_config(shallow, LIVELY, same_source=True))
  (state, *_), _ = on_one_device
  batch = make_batch(0, size=32) | {'source': np.ones(setting.BATCH, np.int32)}
  sources = np.repeat(np.array([1, 2], np.int32), setting.QUEUE // 2)

  @jax.jit
  def compute_loss(params, carry, queue):
    carry = carry | {'queue': queue, 'queue_source': sources}
    return objective.loss('moco', params, carry, batch, 0, jax.random.key(1))[0]

  queue = state.carry['queue']
  own, other = queue.copy(), queue.copy()
  own[:setting.QUEUE // 2] *= -1
  other[setting.QUEUE // 2:] *= -1
  before, with_own, with_other = (compute_loss(state.params, state.carry, rows) for rows in (queue, own, other))
  assert with_other == before
  assert with_own != before


# The options

def encode_linearly(params, stats, images, groups):
  z_BD = images.reshape(len(images), -1) @ params['w']
  return z_BD / jnp.linalg.norm(z_BD, axis=1, keepdims=True), stats


def write_out_loss(config, params, before, carry, batch):
  """The loss by its definition, pair by pair. MoCo v3's with negatives from the batch and `symmetric`, up to its factor
  2 * temperature (facebookresearch/moco-v3, moco/builder.py).

  `before`: the value of `params`. Keys are computed from it, so no gradient passes through them; NumPy holds them,
  since jax takes seconds for thousands of rows one by one."""
  moco, both = config.moco, []
  first = setting.standardised(batch['query'])[:, 0]
  second = setting.standardised(unshuffle_keys(batch['key'], setting.GROUP, setting.SHUFFLE_GROUPS))[:, 0]
  key_encoder = {'w': moco.momentum * carry['key_encoder']['w'] + (1 - moco.momentum) * before['w']}
  for one, other in [(first, second), (second, first)][:2 if moco.symmetric else 1]:
    query_BD = encode_linearly(params, {}, one, 1)[0]
    key_BD = np.asarray(encode_linearly(key_encoder, {}, other, 1)[0])
    losses = []
    for row, query in enumerate(query_BD):
      negatives = []
      if moco.negatives in ('queue', 'both'):
        negatives += [(carry['queue'][i], carry['queue_source'][i], carry.get('queue_patient', [None] * 999)[i])
                      for i in range(setting.QUEUE)]
      if moco.negatives in ('batch', 'both'):
        negatives += [(key_BD[i], batch['source'][i], batch.get('patient', [None] * 999)[i])
                      for i in range(setting.BATCH) if i != row]
      if moco.same_source:
        negatives = [negative for negative in negatives if negative[1] == batch['source'][row]]
      if 'patient' in batch:
        negatives = [negative for negative in negatives if negative[2] != batch['patient'][row]]
      keys = np.stack([key_BD[row], *(negative[0] for negative in negatives)])
      losses.append(-jax.nn.log_softmax(keys @ query / moco.temperature)[0])
    both.append(jnp.stack(losses).mean())
  return sum(both) / len(both)


@pytest.mark.parametrize('negatives, symmetric, same_source, positives', [
  ('queue', False, False, ()), ('batch', False, False, ()), ('batch', True, False, ()), ('queue', True, True, ()),
  ('both', True, False, ('a',)), ('both', False, True, ('a',))])
def test_the_loss_of_each_option_is_its_definition(negatives, symmetric, same_source, positives):
  config = make_config('resnet18', STILL | dict(size=8), positives, negatives=negatives, symmetric=symmetric,
                       same_source=same_source)
  rng = np.random.default_rng(0)
  batch = make_batch(0, size=8) | ({'patient': PATIENTS} if positives else {})
  query, key = rng.normal(size=(2, 64, setting.DIM)).astype(np.float32)
  params, carry = {'w': query}, {
    'key_encoder': {'w': key}, 'key_stats': {}, 'stats': {}, 'queue': setting.first_queue().astype(np.float32),
    'queue_source': np.arange(setting.QUEUE, dtype=np.int32) % 3,
    'queue_patient': np.arange(setting.QUEUE, dtype=np.int32) % 13}
  if not positives:
    del carry['queue_patient']
  compute = jax.jit(jax.value_and_grad(lambda params: compute_loss(
    config, encode_linearly, 'moco', params, carry, batch, 0, jax.random.key(0)), has_aux=True))
  (loss, (after, measures)), gradient = compute(params)
  expected, its_gradient = jax.value_and_grad(
    lambda traced: write_out_loss(config, traced, params, carry, batch))(params)
  assert loss == pytest.approx(float(expected), rel=1e-5) and measures['loss'] == loss
  np.testing.assert_allclose(gradient['w'], its_gradient['w'], rtol=0, atol=1e-4 * np.abs(its_gradient['w']).max())
  if negatives == 'batch':
    assert 'queue' not in after and measures['accuracy'] == measures['accuracy_batch']
  else:
    np.testing.assert_array_equal(after['queue_source'][:setting.BATCH], batch['source'])
    images = setting.standardised(unshuffle_keys(batch['key'], setting.GROUP, setting.SHUFFLE_GROUPS))
    newest, _ = encode_linearly({'w': 0.9 * key + 0.1 * query}, {}, images, 1)
    np.testing.assert_allclose(after['queue'][:setting.BATCH], newest, rtol=0, atol=1e-5)
  if 'queue_patient' in after:
    np.testing.assert_array_equal(after['queue_patient'][:setting.BATCH], PATIENTS)


def test_a_query_shares_no_batch_norm_group_with_its_key_in_either_direction():
  def embed(params, stats, images, groups):  # image number, and number of its group
    return jnp.stack([images.reshape(-1), jnp.repeat(jnp.arange(groups), len(images) // groups)], 1), stats
  moco = make_config('resnet18', STILL).moco
  rows = np.arange(setting.BATCH).reshape(-1, 1, 1, 1)
  shuffled = shuffle_keys(rows, setting.GROUP, setting.SHUFFLE_GROUPS)
  queries, _ = encode(embed, {}, {}, [rows, shuffled], setting.GROUP)
  keys, _ = encode(embed, {}, {}, [shuffled, rows], setting.GROUP)

  def find_group_mates(encoded):
    return {int(image): {int(other) for other, mates in encoded if mates == group} for image, group in encoded}
  owner = np.arange(setting.BATCH, dtype=np.int32)
  for query, key, (paired, owners) in zip(queries, keys, gather_keys(keys, {'source': owner}, moco), strict=True):
    np.testing.assert_array_equal(query[:, 0], paired[:, 0])
    np.testing.assert_array_equal(query[:, 0], owners['source'])
    of_query, of_key = find_group_mates(np.asarray(query)), find_group_mates(np.asarray(key))
    assert all(len(mates) == setting.GROUP and mates & of_key[image] == {image} for image, mates in of_query.items())


def test_two_views_in_one_pass_are_encoded_as_each_alone():
  def embed(params, stats, images, groups):
    norm = BatchNorm(1)
    norm.mean[...], norm.var[...] = stats['mean'], stats['var']
    z = norm(images, groups=groups)
    return z.reshape(len(z), -1), {'mean': norm.mean[...], 'var': norm.var[...]}
  first, second = np.random.default_rng(0).normal(size=(2, 32, 4, 4, 1)).astype(np.float32)
  second = 3 * second + 1
  before = {'mean': jnp.full(1, 0.5), 'var': jnp.full(1, 2.0)}
  both, stats = encode(embed, {}, before, [first, second], 4)
  for view, z in zip((first, second), both, strict=True):
    np.testing.assert_allclose(z, embed({}, before, view, 8)[0], rtol=1e-5, atol=1e-5)
  for name, value in stats.items():
    alone = [embed({}, before, view, 8)[1][name] for view in (first, second)]
    np.testing.assert_allclose(value, (alone[0] + alone[1]) / 2, rtol=1e-5)


def test_the_state_has_what_the_options_need():
  def name_carry(positives=(), **fields):
    config = make_config('resnet18', STILL, positives, **fields)
    return set(shape_state(make_moco(config), make_optimiser(config.optimiser)).carry)
  always = {'stats', 'key_encoder', 'key_stats'}
  assert name_carry() == name_carry(symmetric=True) == always | {'queue', 'queue_source'}
  assert name_carry(negatives='batch', positives=('a',)) == always
  assert name_carry(negatives='both', positives=('a',)) == always | {'queue', 'queue_source', 'queue_patient'}


def test_eight_devices_take_the_same_step_with_all_options_and_exchange_no_images(shallow):
  options = dict(owners={'patient': PATIENTS}, steps=1, positives=('a',), negatives='both', symmetric=True)
  (_, after), (measures,) = take_steps(shallow, devices=1, **options)
  (_, after_8), (measures_8,) = take_steps(shallow, devices=8, messages=(messages := []), **options)
  for name, value in measures.items():
    np.testing.assert_allclose(measures_8[name], value, rtol=1e-5, err_msg=name)
  jax.tree.map(lambda one, eight: np.testing.assert_allclose(eight, one, rtol=0, atol=2e-5 * np.abs(one).max()),
               after, after_8)
  assert sorted(kind for kind, _ in messages) == ['all-gather', 'all-reduce']
  assert dict(messages)['all-gather'] == setting.BATCH * (2 * setting.DIM + 2) * 4, 'two keys, source and patient, f32'
