"""The balanced sampler: groups take turns, and the order is a function of the position."""

import numpy as np
import pytest

from mtpret_jax.data.sampling import Indices, shuffle_source, shuffle_task

GROUPS = [np.arange(3, 60), np.array([0, 1]), np.array([2])]


@pytest.fixture(scope='module')
def order():
  dataset = shuffle_task(Indices(60), GROUPS, seed=5)
  return [dataset[index] for index in range(300)]


def test_each_group_is_drawn_equally_often_and_wholly_before_it_repeats(order):
  drawn = [[record for record in order if record in set(group.tolist())] for group in GROUPS]
  assert [len(records) for records in drawn] == [100, 100, 100]
  for group, records in zip(GROUPS, drawn, strict=True):
    assert sorted(records[:len(group)]) == group.tolist()
  assert drawn[0][:43] != drawn[0][57:], 'the second epoch has another order'


def test_the_order_is_a_function_of_the_position_and_of_the_seed(order):
  dataset = shuffle_task(Indices(60), GROUPS, seed=5)
  assert [dataset[index] for index in (250, 7, 299, 0)] == [order[index] for index in (250, 7, 299, 0)]
  assert [dataset[200:][index] for index in range(20)] == order[200:220]
  assert [shuffle_task(Indices(60), GROUPS, seed=6)[index] for index in range(60)] != order[:60]


def test_without_groups_the_order_is_that_of_shuffling():
  one, other = shuffle_task(Indices(60), [], seed=5), shuffle_source(Indices(60), 5)
  assert [one[index] for index in range(130)] == [other[index] for index in range(130)]
