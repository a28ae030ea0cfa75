"""A trunk and its heads: what a visit to one task changes, what it does not change, and what the memory does."""

import collections
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import common
from mtpret_jax import stages, train
from mtpret_jax.data.records import decode_image, read_text
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from mtpret_jax.objectives.multitask import make_multitask, measure_drift
from mtpret_jax.runtime import checkpoint, preemption
from mtpret_jax.runtime.sharding import make_mesh, place_batch
from mtpret_jax.stages import make_run
from mtpret_jax.step import TrainState, compile_step, init_state, make_optimiser
from mtpret_jax.tasks import find_kind
from tests.support.changed import change
from tests.support.interrupted import listen, stop_at

BATCH, SIZE = 16, 16
BEGINS = np.array([True, False, True, False, True, False])
ORDER = ['chest', 'chest', 'hand', 'hand', 'chest', 'chest']  # the task of each step
SGD = dict(kind='sgd', momentum=0.9, weight_decay=0.1)
ABOUT = {'relation': 'independent', 'findings': ['a', 'b', 'c']}
TASKS = {'chest': find_kind('classification').make_model(ABOUT, None),
         'hand': find_kind('regression').make_model({}, ConfigDict(dict(mean=5.0, deviation=2.0)))}


@pytest.fixture(scope='module', autouse=True)
def trunk():
  LAYERS['stem'] = (BasicBlock, (0, 0, 0, 0))
  yield
  del LAYERS['stem']


def make_config(**changes):
  task_config = dict(group=2, augment=common.labelled_augment(SIZE))
  config = ConfigDict(dict(trunk='stem', init='scratch', trunk_scale=1.0, dtype='float32', train='all',
                           statistics='per_task',
                           memory=dict(anchor='previous_visit', l2_sp=0.5),
                           tasks={'chest': task_config, 'hand': task_config}))
  config.update_from_flattened_dict(changes)
  return config


def make_objective(**changes):
  return make_multitask(make_config(**changes), TASKS, BEGINS)


def draw_batch(task, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (BATCH, 20, 20, 1), dtype=np.uint8)
  if task == 'hand':
    return {'image': image, 'value': rng.normal(5, 2, (BATCH, 1)).astype(np.float32)}
  known = rng.random((BATCH, 3)) < 0.7
  return {'image': image, 'label_mask': known, 'present': ((rng.random((BATCH, 3)) < 0.5) & known).astype(np.float32)}


def draw_joint_batch():
  return {f'{task}/{field}': rows for task in TASKS for field, rows in draw_batch(task).items()}


def take_steps(objective, order=ORDER, devices=None):
  """The states before and after each step, and the measures of each."""
  mesh, optimiser = make_mesh(devices), make_optimiser(ConfigDict(SGD))
  state = init_state(objective, optimiser, mesh, seed=0)
  steps = {task: compile_step(objective, optimiser, lambda step: jnp.float32(0.01), task, mesh, seed=0)
           for task in set(order)}
  states, measured = [jax.device_get(state)], []
  for number, task in enumerate(order):
    state, measures = steps[task](state, place_batch(draw_batch(task, number), mesh))
    states.append(jax.device_get(state))
    measured.append(jax.device_get(measures))
  return states, measured


@pytest.fixture(scope='module')
def visits():
  return take_steps(make_objective())


def compute_carry(task, params, carry, step, **changes):
  """The carry after the loss of one step, without a gradient."""
  objective = make_objective(**changes)
  _, (after, _) = jax.jit(functools.partial(objective.loss, task))(
    params, carry, draw_batch(task), step, jax.random.key(0))
  return after


@functools.cache
def make_gradient(task, **changes):
  """gradient(params, carry, batch, rng) -> (gradients, (carry, measures)) at step 1, which begins no visit."""
  objective = make_objective(**changes)

  def compute_loss(params, carry, batch, rng):
    return objective.loss(task, params, carry, batch, 1, rng)
  return jax.jit(jax.grad(compute_loss, has_aux=True))


def init_away_from_anchor(**changes):
  """(params, carry) with an anchor that differs from the trunk."""
  params, carry = jax.jit(make_objective(**changes).init)(jax.random.key(3))
  carry['anchor'] = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(leaf + 1), carry['anchor'])
  return params, carry


def differ(one, other):
  """Whether any number differs between two trees of the same structure."""
  return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), one, other)))


def test_a_visit_does_not_change_the_other_head_its_momentum_or_its_statistics(visits):
  states, _ = visits
  for number, task in enumerate(ORDER):
    before, after = states[number:number + 2]
    other, = set(TASKS) - {task}
    for field in ('params', 'opt'):
      old, new = getattr(before, field), getattr(after, field)
      assert {part: differ(old[part], new[part]) for part in old} == {'trunk': True, task: True, other: False}
    old, new = before.carry['stats']['trunk'], after.carry['stats']['trunk']
    assert {owner: differ(old[owner], new[owner]) for owner in old} == {task: True, other: False}


@pytest.mark.parametrize('task', TASKS)
def test_every_task_updates_shared_statistics(task):
  params, carry = init_away_from_anchor(statistics='shared')
  assert list(carry['stats']['trunk']) == ['all']
  after = compute_carry(task, params, carry, 1, statistics='shared')
  assert differ(after['stats']['trunk']['all'], carry['stats']['trunk']['all'])


def test_the_anchor_is_the_trunk_at_the_end_of_the_previous_visit(visits):
  states, _ = visits
  for number in range(len(ORDER)):
    began = max(place for place in np.flatnonzero(BEGINS) if place <= number)
    anchor = states[number + 1].carry['anchor']
    assert not differ(anchor, states[began].params['trunk'])
    assert differ(anchor, states[number + 1].params['trunk'])


def test_an_anchor_at_the_start_does_not_move():
  params, carry = init_away_from_anchor()
  after = compute_carry('hand', params, carry, 2, **{'memory.anchor': 'start'})
  assert BEGINS[2] and not differ(after['anchor'], carry['anchor'])


def test_without_memory_there_is_no_anchor():
  _, carry = jax.eval_shape(make_objective(**{'memory.anchor': 'none'}).init, jax.random.key(0))
  assert list(carry) == ['stats']


def test_the_loss_gradient_plus_the_pull_is_the_gradient_of_the_penalised_loss():
  params, carry = init_away_from_anchor()
  objective, args = make_objective(), (draw_batch('chest'), jax.random.key(0))

  def penalise(params, carry, batch, rng):
    loss, (after, _) = objective.loss('chest', params, carry, batch, 1, rng)
    squares = jax.tree.map(lambda here, anchor: jnp.square(here - anchor).sum(), params['trunk'], after['anchor'])
    return loss + 0.5 / 2 * sum(jax.tree.leaves(squares))
  penalised = jax.jit(jax.grad(penalise))(params, carry, *args)
  free, (after, _) = make_gradient('chest')(params, carry, *args)
  pull = objective.pull(params, after)
  assert list(pull) == ['trunk'], 'no head is pulled'
  jax.tree.map(lambda whole, loss, pull: np.testing.assert_allclose(
    loss + pull, whole, rtol=1e-6, atol=1e-6 * (1 + np.abs(whole).max())),
    penalised['trunk'], free['trunk'], pull['trunk'])


def test_a_step_logs_the_pull_beside_the_gradient_of_the_loss(visits):
  states, measured = visits
  for number, (step, task) in enumerate(zip(measured, ORDER, strict=True)):
    assert (step['drift'] == 0) == (step['pull_ratio'] == 0) == BEGINS[number]
    if BEGINS[number]:
      continue
    before, anchor = states[number], states[number + 1].carry['anchor']
    free, _ = make_gradient(task)(before.params, before.carry, draw_batch(task, number),
                                  jax.random.fold_in(jax.random.key(0), number))
    assert step['pull_ratio'] == pytest.approx(
      float(0.5 * measure_drift(before.params['trunk'], anchor) / optax.global_norm(free['trunk'])), rel=1e-3)


def test_a_frozen_trunk_or_a_run_without_memory_is_not_pulled():
  for changes in ({'train': 'head'}, {'memory.anchor': 'none'}):
    assert make_objective(**changes).pull({'trunk': {}}, {'anchor': {}}) == {}


def test_drift_is_the_distance_to_the_anchor():
  params, carry = init_away_from_anchor()
  _, (_, measures) = make_gradient('chest')(
    params, carry, draw_batch('chest'), jax.random.key(0))
  flat, flat_anchor = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
                       for tree in (params['trunk'], carry['anchor']))
  assert measures['drift'] == pytest.approx(np.linalg.norm(flat - flat_anchor), rel=1e-5)


def test_a_joint_step_has_the_mean_gradient_and_updates_every_tasks_statistics():
  params, carry = init_away_from_anchor()
  rng = jax.random.key(5)
  joint, (after, _) = make_gradient('joint')(params, carry, draw_joint_batch(), rng)
  single = {}
  for index, task in enumerate(TASKS):
    single[task], (alone, _) = make_gradient(task)(
      params, carry, draw_batch(task), jax.random.fold_in(rng, index))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
                 after['stats']['trunk'][task], alone['stats']['trunk'][task])
  jax.tree.map(lambda both, chest, hand: np.testing.assert_allclose(
    both, (chest + hand) / 2, rtol=1e-3, atol=1e-5 * (1 + np.abs(both).max())), joint, single['chest'], single['hand'])


def test_a_frozen_trunk_keeps_its_weights_and_statistics():
  (first, *_, last), _ = take_steps(make_objective(train='head'), ORDER[:2])
  assert not differ(first.params['trunk'], last.params['trunk'])
  assert not differ(first.carry['stats']['trunk'], last.carry['stats']['trunk'])
  assert not differ(first.opt['trunk'], last.opt['trunk'])
  assert differ(first.params['chest'], last.params['chest'])


def test_only_a_pretrained_trunk_learns_at_its_own_rate():
  assert make_objective(trunk_scale=0.1, init='md_moco').learning_rate_scales == {'trunk': 0.1}
  assert not make_objective(trunk_scale=0.1, init='scratch').learning_rate_scales


def test_padding_and_unknown_labels_do_not_change_the_loss_or_the_gradient():
  params, carry = init_away_from_anchor()
  gradient = make_gradient('chest', train='head')
  batch = draw_batch('chest') | {'valid': np.arange(BATCH) < 13}
  other = draw_batch('chest', seed=1)
  noise = batch | {'image': np.where(batch['valid'][:, None, None, None], batch['image'], other['image']),
                   'present': np.where(batch['label_mask'] & batch['valid'][:, None], batch['present'], 1)}
  assert (noise['present'][:13] != batch['present'][:13]).any(), 'the batch has unknown labels'
  (one, (_, measures)), (two, (_, measures_two)) = (gradient(params, carry, rows, jax.random.key(0))
                                                    for rows in (batch, noise))
  assert measures['loss'] == measures_two['loss'] and not differ(one['chest'], two['chest'])
  two, _ = gradient(params, carry, other | {'valid': batch['valid']}, jax.random.key(0))
  assert differ(one['chest'], two['chest'])


def test_eight_devices_compute_what_one_does(visits):
  states, measured = visits
  alone, measured_alone = take_steps(make_objective(), ORDER[:2], jax.devices()[:1])
  for one, eight in zip(measured_alone, measured, strict=False):
    np.testing.assert_allclose(one['loss'], eight['loss'], rtol=1e-4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-4),
               alone[1].params, states[1].params)


def record_compilations(monkeypatch):
  """{task: its jitted steps}, which the run fills in."""
  compiled, compile_step = {}, train.compile_step

  def compile_and_note(objective, optimiser, schedule, task, *rest):
    step = compile_step(objective, optimiser, schedule, task, *rest)
    compiled.setdefault(task, []).append(step)
    return step
  monkeypatch.setattr(train, 'compile_step', compile_and_note)
  return compiled


@pytest.mark.parametrize('step', [4, 6])
def test_a_run_interrupted_within_or_after_a_visit_ends_bit_for_bit_the_same(
    step, two_tasks, two_tasks_run, tmp_path, monkeypatch):
  _, whole = two_tasks_run
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, step)
    stages.train_stage(two_tasks, tmp_path)
  compiled = record_compilations(monkeypatch)
  again = jax.device_get(stages.train_stage(two_tasks, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert {task: [step.jitted._cache_size() for step in steps] for task, steps in compiled.items()} == {
    'bone_age': [1], 'pneumonia': [1]}, 'the step of each task is compiled once in a run'


def test_a_signal_while_a_later_task_compiles_saves_the_steps_before(
    two_tasks, two_tasks_run, tmp_path, monkeypatch):
  """The compiler is not waited for: it may take minutes, and the machine may be taken away before."""
  class Compiler:
    def lower(self, state, batch):
      return self

    def compile(self):
      signal.raise_signal(signal.SIGTERM)
      pytest.fail('the compiler was waited for')
  compile_step, tasks = train.compile_step, []

  def compile_the_first(objective, optimiser, schedule, task, *rest):
    tasks.append(task)
    return compile_step(objective, optimiser, schedule, task, *rest) if len(tasks) == 1 else Compiler()
  with monkeypatch.context() as patch, listen():
    patch.setattr(train, 'compile_step', compile_the_first)
    with pytest.raises(preemption.Stopped, match='at step 3 of 12, which is saved'):
      stages.train_stage(change(two_tasks, save_every=100), tmp_path)
    assert not preemption.SignalState.abandons
  assert len(tasks) == 2 and checkpoint.read_state(tmp_path)[0]['step'] == 3


@pytest.mark.parametrize('order, step', [('cyclic_reshuffled', 10), ('joint', 4)])
def test_the_images_of_a_step_can_be_named_without_reading_its_batch(order, step, two_tasks):
  config = change(two_tasks, order=order)
  run = make_run(config)
  task, batch = run.batches[step]
  owners = {task_config.dataset: name for name, task_config in config.tasks.items()}
  ids = {source.name: [read_text(source.records[index]['image_id']) for index in range(len(source))]
         for source in run.sources}
  found = collections.defaultdict(list)
  for dataset, image_id in run.name_images(step):
    source = next(source for source in run.sources if source.name == dataset)
    record = source.records[ids[dataset].index(image_id)]
    found[owners[dataset]].append(decode_image(record['image'], 36))
  fields = {name: batch[f'{name}/image'] for name in found} if task == 'joint' else {task: batch['image']}
  for name in found.keys() | fields.keys():
    np.testing.assert_array_equal(np.stack(found[name]), fields[name])


def test_a_finished_run_has_nothing_left_to_do(two_tasks, two_tasks_run):
  workdir, whole = two_tasks_run
  before = (workdir / 'validation.jsonl').read_text()
  again = jax.device_get(stages.train_stage(two_tasks, workdir))
  assert isinstance(again, TrainState)
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert (workdir / 'validation.jsonl').read_text() == before
