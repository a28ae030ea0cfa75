"""The plan of visits: which task at which step, a function of the seed and the round."""

import collections

import grain
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import continual, finetune
from mtpret_jax import stages
from mtpret_jax.data import pipeline
from mtpret_jax.data.pipeline import VisitBatches
from mtpret_jax.data.task_schedule import JOINT, ORDERS, count_visit_steps, make_plan
from mtpret_jax.step import make_visit_schedule

LENGTHS = {'chest': 3, 'hand': 5, 'jaw': 2}
ROUNDS = 4


def list_tasks(plan):
  """[task of each step]."""
  return [plan.find(step).task for step in range(plan.steps)]


def list_rounds(seed, rounds=ROUNDS, lengths=LENGTHS):
  """The tasks of each reshuffled round, in order."""
  visits = make_plan(lengths, rounds, 'cyclic_reshuffled', seed).visits
  return [tuple(visit.task for visit in visits if visit.round == number) for number in range(rounds)]


@pytest.mark.parametrize('order', ['cyclic_reshuffled', 'cyclic', 'sequential'])
def test_every_task_gets_its_steps_in_every_round(order):
  counts = collections.Counter(list_tasks(make_plan(LENGTHS, ROUNDS, order, seed=0)))
  assert counts == {task: length * ROUNDS for task, length in LENGTHS.items()}


def test_cyclic_rounds_keep_the_given_order():
  assert list_tasks(make_plan(LENGTHS, 2, 'cyclic', seed=7)) == 2 * (3 * ['chest'] + 5 * ['hand'] + 2 * ['jaw'])


def test_sequential_visits_each_task_once():
  plan = make_plan(LENGTHS, ROUNDS, 'sequential', seed=7)
  assert list_tasks(plan) == 12 * ['chest'] + 20 * ['hand'] + 8 * ['jaw']
  assert np.flatnonzero(plan.begins).tolist() == [0, 12, 32]
  assert plan.round_ends == [12, 32, 40]


def test_reshuffled_rounds_are_different_permutations():
  rounds = list_rounds(seed=0, rounds=40)
  assert all(sorted(tasks) == sorted(LENGTHS) for tasks in rounds)
  assert set(rounds) == set(list_rounds(seed=1, rounds=200)) and len(set(rounds)) == 6, 'every order occurs'
  assert list_rounds(seed=0) != list_rounds(seed=1)


def test_a_round_depends_on_seed_and_round_only():
  longer = list_rounds(seed=3, rounds=9, lengths={task: 2 * length for task, length in LENGTHS.items()})
  assert list_rounds(seed=3, rounds=5) == longer[:5]


def test_joint_rounds_have_as_many_batches_as_the_other_orders():
  plan = make_plan({'chest': 3, 'hand': 6, 'jaw': 3}, ROUNDS, JOINT, seed=0)
  assert set(list_tasks(plan)) == {JOINT} and plan.steps * 3 == (3 + 6 + 3) * ROUNDS
  assert plan.round_ends == [4, 8, 12, 16]


@pytest.mark.parametrize('order', ORDERS)
def test_visits_have_no_gaps_and_begins_marks_their_first_steps(order):
  plan = make_plan(LENGTHS, ROUNDS, order, seed=2)
  for step in range(plan.steps):
    visit = plan.find(step)
    assert visit.start <= step < visit.start + visit.length
    assert plan.begins[step] == (step == visit.start)
  assert plan.begins.sum() == len(plan.visits) and len(plan.begins) == plan.steps
  assert plan.round_ends[-1] == plan.steps


def test_rounds_end_after_the_last_visit_of_each():
  plan = make_plan(LENGTHS, ROUNDS, 'cyclic_reshuffled', seed=5)
  assert plan.round_ends == [10, 20, 30, 40]


def test_an_unknown_order_lists_the_choices():
  with pytest.raises(ValueError, match='unknown order .random.: choose one of cyclic_reshuffled, cyclic, sequential'):
    make_plan(LENGTHS, 1, 'random', seed=0)


def number_batches(plan):
  return VisitBatches(plan, {task: [{'number': number} for number in range(100)] for task in LENGTHS})


@pytest.mark.parametrize('order', ['cyclic_reshuffled', 'cyclic', 'sequential'])
def test_batches_of_a_task_continue_where_its_last_visit_stopped(order):
  visits = number_batches(make_plan(LENGTHS, ROUNDS, order, seed=1))
  seen = collections.defaultdict(list)
  for step in range(len(visits)):
    task, batch = visits[step]
    seen[task].append(batch['number'])
  assert seen == {task: list(range(length * ROUNDS)) for task, length in LENGTHS.items()}


def test_joint_batches_have_the_fields_of_every_task_and_continue_through_the_rounds():
  visits = number_batches(make_plan(LENGTHS, 2, JOINT, seed=1))
  assert [visits[step] for step in range(len(visits))] == [
    (JOINT, {f'{task}/number': step for task in LENGTHS}) for step in range(len(visits))]


@pytest.mark.parametrize('start', [0, 1, 7, 19, 20])
def test_a_stream_that_starts_at_any_step_continues_as_the_whole_one(start):
  visits = number_batches(make_plan(LENGTHS, 2, 'cyclic_reshuffled', seed=1))
  reading = ConfigDict(dict(threads=2, prefetch=2, workers=0))
  with pipeline.stream(grain.MapDataset.source(visits), start, reading) as feed:
    assert list(feed) == [visits[step] for step in range(start, 20)]


def make_rates(**own):
  """A config with learning rates from 0.5 to 0, without warm-up, and some tasks' `own` (peak, final)."""
  tasks = {task: dict(learning_rates=own.get(task, ())) for task in LENGTHS}
  return ConfigDict(dict(tasks=tasks, optimiser=dict(learning_rate=0.5, final_learning_rate=0.0, warmup=0.0)))


@pytest.mark.parametrize('order', ['cyclic_reshuffled', 'sequential', JOINT])
def test_the_learning_rate_restarts_in_every_visit(order):
  plan = make_plan(LENGTHS, ROUNDS, order, seed=2)
  learning_rate = make_visit_schedule(make_rates(), plan)
  for visit in plan.visits:
    done = np.arange(visit.length) / visit.length
    np.testing.assert_allclose([learning_rate(visit.start + step) for step in range(visit.length)],
                               0.25 * (1 + np.cos(np.pi * done)), rtol=1e-5, atol=1e-7)


def test_a_task_may_have_learning_rates_of_its_own_except_in_joint_steps():
  config = make_rates(hand=(0.25, 0.125))
  plan = make_plan(LENGTHS, ROUNDS, 'cyclic_reshuffled', seed=2)
  learning_rate = make_visit_schedule(config, plan)
  peaks = {visit.task: learning_rate(visit.start) for visit in plan.visits}
  lasts = {visit.task: learning_rate(visit.start + visit.length - 1) for visit in plan.visits}
  assert peaks == {'chest': 0.5, 'hand': 0.25, 'jaw': 0.5} and lasts['hand'] > 0.125 > lasts['chest'] - 0.01
  joint = make_plan(LENGTHS, ROUNDS, JOINT, seed=2)
  assert make_visit_schedule(config, joint)(0) == 0.5


def test_more_rounds_leave_the_visits_and_learning_rates_of_the_earlier_ones_as_they_are():
  for order in ('cyclic_reshuffled', 'cyclic', JOINT):
    short, long = make_plan(LENGTHS, 3, order, seed=2), make_plan(LENGTHS, 5, order, seed=2)
    steps = np.arange(short.steps)
    assert long.visits[:len(short.visits)] == short.visits
    np.testing.assert_array_equal(make_visit_schedule(make_rates(), long)(steps),
                                  make_visit_schedule(make_rates(), short)(steps))


def test_validations_are_spaced_over_each_round_and_the_last_is_at_its_end():
  plan = make_plan(LENGTHS, 2, 'cyclic', seed=0)  # rounds of ten steps
  assert sorted(plan.space_validations(1)) == plan.round_ends == [10, 20]
  assert sorted(plan.space_validations(4)) == [2, 5, 7, 10, 12, 15, 17, 20]
  assert sorted(plan.space_validations(50)) == list(range(1, 21))
  task = finetune.get_config('lung')
  assert sorted(stages.make_plan(task, {'lung': 564}).space_validations(task.validations)) == [
    50, 100, 150, 200, 250, 300]


PUBLISHED = {'pneumonia': 4686, 'abnormality': 32_013, 'lung': 564, 'tuberculosis': 640, 'bone_age': 10_090, 'jaw': 93,
             'knee': 6608}  # training images


def test_visits_at_full_scale_are_an_epoch_but_never_only_a_few_steps():
  lengths = {visit.task: visit.length
             for visit in stages.make_plan(continual.get_config('mtpret7'), PUBLISHED).visits}
  assert lengths == {'pneumonia': 146, 'abnormality': 1000, 'lung': 20, 'tuberculosis': 20, 'bone_age': 315, 'jaw': 20,
                     'knee': 206}


@pytest.mark.parametrize('task, steps', [('pneumonia', 7321), ('abnormality', 50_020), ('lung', 881), ('jaw', 500)])
def test_fine_tuning_at_full_scale_is_in_epochs_and_validated_once_per_epoch(task, steps):
  config = finetune.get_config(f'real,{task}')
  plan = stages.make_plan(config, PUBLISHED)
  assert plan.steps == steps and len(plan.space_validations(config.validations)) == 50 and config.patience == 20


def test_a_fraction_of_an_epoch_is_not_lost_to_rounding():
  task_config = ConfigDict(dict(steps=0, epochs=0.29, batch=1, min_steps=1, max_steps=0))
  assert count_visit_steps(task_config, 100) == 29 and 0.29 * 100 < 29


@pytest.mark.parametrize('images, steps', [(10, 20), (100, 50), (1000, 300)])
def test_epochs_are_limited_from_both_sides(images, steps):
  task_config = ConfigDict(dict(steps=0, epochs=2.0, batch=4, min_steps=20, max_steps=300))
  assert count_visit_steps(task_config, images) == steps


def test_a_visit_of_zero_steps_is_an_epoch_of_whole_batches():
  task_config = dict(batch=4, steps=0, epochs=1.0, min_steps=1, max_steps=0)
  configs = dict(chest=task_config, hand=task_config | dict(steps=9), jaw=task_config)
  config = ConfigDict(dict(tasks=configs, rounds=1, order='cyclic', seed=0))
  plan = stages.make_plan(config, {'chest': 23, 'hand': 23, 'jaw': 3})
  assert [(visit.task, visit.length) for visit in plan.visits] == [('chest', 5), ('hand', 9), ('jaw', 1)]
