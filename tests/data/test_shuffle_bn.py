"""Keys are in other batch-norm groups than their queries, in an order that does not depend on the devices."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.data.shuffle_bn import shuffle_keys, unshuffle_keys

LAYOUTS = [(4, 4, 1), (8, 4, 2), (6, 3, 1), (4, 6, 1), (5, 2, 3), (32, 8, 1)]  # rows in a group, groups, blocks


def group_rows(rows, group):
  return [set(part) for part in np.asarray(rows).reshape(-1, group)]


def largest_overlap(group, groups, blocks):
  """The largest share of a group of keys that is in one group of queries, counted."""
  rows = np.arange(group * groups * blocks)
  return max(len(keys & queries) for keys in group_rows(shuffle_keys(rows, group, groups), group)
             for queries in group_rows(rows, group)) / group


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_unshuffling_puts_keys_back_to_their_queries(group, groups, blocks):
  rows = np.arange(group * groups * blocks * 3).reshape(-1, 3)
  shuffled = shuffle_keys(rows, group, groups)
  assert sorted(shuffled[:, 0]) == sorted(rows[:, 0])
  np.testing.assert_array_equal(unshuffle_keys(shuffled, group, groups), rows)
  np.testing.assert_array_equal(unshuffle_keys(jnp.array(shuffled), group, groups), rows)


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_no_group_of_keys_equals_a_group_of_queries(group, groups, blocks):
  assert largest_overlap(group, groups, blocks) < 1


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_overlap_is_at_most_one_in_the_number_of_groups_rounded_up(group, groups, blocks):
  assert largest_overlap(group, groups, blocks) <= math.ceil(group / groups) / group
  if group % groups == 0:
    assert largest_overlap(group, groups, blocks) == 1 / groups


def test_a_single_group_is_not_shuffled():
  rows = np.arange(12)
  np.testing.assert_array_equal(shuffle_keys(rows, 4, 1), rows)


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_order_does_not_depend_on_the_number_of_processes(processes):
  rows, group, groups = np.arange(64), 4, 4
  shared = [shuffle_keys(part, group, groups) for part in np.split(rows, processes)]
  np.testing.assert_array_equal(np.concatenate(shared), shuffle_keys(rows, group, groups))
