"""Forgetting and backward transfer of made-up rounds."""

import pytest

from mtpret_jax.evaluation.rounds import compute_forgetting, compute_forgetting_by_round, summarise_memory

DOWN = -1  # lower is better
UNDEFINED = {'forgetting': None, 'transfer': None}


def make_lines(**tasks):
  """Lines of `validation.jsonl` from {task: (sign, values of each round)}."""
  rounds = range(len(next(iter(tasks.values()))[1]))
  return [{'step': 10 * (number + 1), 'tasks': {
    name: {'headline': 'score', 'value': values[number], 'sign': sign} for name, (sign, values) in tasks.items()}}
    for number in rounds]


def test_forgetting_compares_with_the_best_round_and_transfer_with_the_first():
  measured = compute_forgetting(make_lines(
    auc=(1, [0.5, 0.875, 0.75]), months=(DOWN, [20.0, 8.0, 11.0]), rising=(1, [0.25, 0.5, 0.75])),
    ['auc', 'months', 'rising'], 'cyclic')
  assert measured == {'auc': {'forgetting': 0.125, 'transfer': 0.25}, 'months': {'forgetting': 3.0, 'transfer': 9.0},
                      'rising': {'forgetting': -0.25, 'transfer': 0.5}}


@pytest.mark.parametrize('values', [[0.5], [0.5, None, 0.7]])
def test_one_round_or_an_undefined_score_leaves_forgetting_undefined(values):
  assert compute_forgetting(make_lines(auc=(1, values)), ['auc'], 'cyclic') == {'auc': UNDEFINED}


def test_with_one_visit_per_task_its_scores_count_from_that_visit_on():
  """Before its visit, the head of a task is untrained."""
  tasks = ['first', 'second', 'third']
  lines = make_lines(first=(1, [0.875, 0.75, 0.5]), second=(DOWN, [50.0, 8.0, 11.0]), third=(1, [None, 0.25, 0.75]))
  assert compute_forgetting(lines, tasks, 'sequential') == {
    'first': {'forgetting': 0.375, 'transfer': -0.375}, 'second': {'forgetting': 3.0, 'transfer': -3.0},
    'third': UNDEFINED}
  assert compute_forgetting(lines[:2], tasks, 'sequential') == dict.fromkeys(tasks, UNDEFINED), 'a line is missing'


def make_metrics(*lines):
  return [{'step': step, 'task': task, 'loss': 1.0, 'drift': drift, 'pull_ratio': ratio}
          for step, task, drift, ratio in lines]


def test_memory_is_the_last_drift_and_the_mean_ratio_of_each_visit():
  metrics = make_metrics((10, 'hand', 0.5, 0.0), (20, 'hand', 1.0, 0.5), (30, 'chest', 3.0, 0.125),
                         (40, 'chest', 2.0, 0.25), (50, 'hand', 4.0, 0.75))
  assert summarise_memory(metrics, [40, 80]) == {
    'hand': [{'drift': 1.0, 'pull_ratio': 0.25}, {'drift': 4.0, 'pull_ratio': 0.75}],
    'chest': [{'drift': 2.0, 'pull_ratio': 0.1875}, {'drift': None, 'pull_ratio': None}]}


def test_a_run_without_memory_has_no_summary_of_it():
  assert summarise_memory([{'step': 10, 'task': 'hand', 'loss': 1.0}], [10]) == {}


@pytest.mark.parametrize('order', ['cyclic', 'sequential'])
def test_forgetting_by_round_ends_with_that_of_the_run(order):
  values = {'a': (0.5, 0.9, 0.7), 'b': (0.2, 0.6, 0.8), 'c': (0.4, 0.1, 0.3)}
  lines = [{'tasks': {name: {'value': scores[index], 'sign': 1} for name, scores in values.items()}}
           for index in range(3)]
  by_round = compute_forgetting_by_round(lines, list(values), order)
  last = {name: found['forgetting'] for name, found in compute_forgetting(lines, list(values), order).items()}
  assert {name: found[-1] for name, found in by_round.items()} == pytest.approx(last)
  assert by_round['a'] == pytest.approx([None, -0.4, 0.2])
  assert by_round['c'][1] == (None if order == 'sequential' else pytest.approx(0.3))


def test_in_the_sequential_order_a_missing_line_leaves_forgetting_unknown():
  lines = [{'tasks': {name: {'value': value, 'sign': 1} for name in 'abc'}} for value in (0.5, 0.7)]
  assert compute_forgetting_by_round(lines, list('abc'), 'sequential') == {name: [None, None] for name in 'abc'}
  assert compute_forgetting(lines, list('abc'), 'sequential')['a']['forgetting'] is None
  assert compute_forgetting_by_round(lines, list('abc'), 'cyclic')['a'] == pytest.approx([None, -0.2])
