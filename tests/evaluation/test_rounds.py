"""Forgetting and backward transfer of made-up rounds."""

import pytest

from mtpret_jax.evaluation.rounds import compute_forgetting

DOWN = -1  # lower is better


def make_lines(**tasks):
  """Lines of `validation.jsonl` from {task: (sign, values of each round)}."""
  rounds = range(len(next(iter(tasks.values()))[1]))
  return [{'step': 10 * (number + 1), 'tasks': {
    name: {'headline': 'score', 'value': values[number], 'sign': sign} for name, (sign, values) in tasks.items()}}
    for number in rounds]


def test_forgetting_compares_with_the_best_round_and_transfer_with_the_first():
  measured = compute_forgetting(make_lines(
    auc=(1, [0.5, 0.875, 0.75]), months=(DOWN, [20.0, 8.0, 11.0]), rising=(1, [0.25, 0.5, 0.75])))
  assert measured == {'auc': {'forgetting': 0.125, 'transfer': 0.25}, 'months': {'forgetting': 3.0, 'transfer': 9.0},
                      'rising': {'forgetting': -0.25, 'transfer': 0.5}}


@pytest.mark.parametrize('values', [[0.5], [0.5, None, 0.7]])
def test_one_round_or_an_undefined_score_leaves_forgetting_undefined(values):
  assert compute_forgetting(make_lines(auc=(1, values))) == {'auc': {'forgetting': None, 'transfer': None}}
