"""The plan of visits: which task at which step, a function of the seed and the round."""

import collections

import grain
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax import stages
from mtpret_jax.data import pipeline
from mtpret_jax.data.pipeline import VisitBatches
from mtpret_jax.data.task_schedule import JOINT, ORDERS, make_plan
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


def test_a_visit_of_zero_steps_is_an_epoch_of_whole_batches():
  task_config = dict(batch=4, steps=0, epochs=1.0, min_steps=1)
  configs = dict(chest=task_config, hand=task_config | dict(steps=9), jaw=task_config)
  config = ConfigDict(dict(tasks=configs, rounds=1, order='cyclic', seed=0))
  plan = stages.make_plan(config, {'chest': 23, 'hand': 23, 'jaw': 3})
  assert [(visit.task, visit.length) for visit in plan.visits] == [('chest', 5), ('hand', 9), ('jaw', 1)]
