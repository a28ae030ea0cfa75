"""Keys sit in other batch-norm groups than their queries, in an order that everybody can compute."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.data.shuffle_bn import place_keys, return_keys, share_of_group

LAYOUTS = [(4, 4, 1), (8, 4, 2), (6, 3, 1), (4, 6, 1), (5, 2, 3), (32, 8, 1)]  # rows in a group, groups, blocks


def group_rows(rows, group):
  return [set(part) for part in np.asarray(rows).reshape(-1, group)]


def largest_overlap(group, groups, blocks):
  """The largest share of a key's group that is in one of the queries' groups, counted."""
  rows = np.arange(group * groups * blocks)
  return max(len(keys & queries) for keys in group_rows(place_keys(rows, group, groups), group)
             for queries in group_rows(rows, group)) / group


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_keys_come_back_to_their_queries(group, groups, blocks):
  rows = np.arange(group * groups * blocks * 3).reshape(-1, 3)
  placed = place_keys(rows, group, groups)
  assert sorted(placed[:, 0]) == sorted(rows[:, 0])
  np.testing.assert_array_equal(return_keys(placed, group, groups), rows)
  np.testing.assert_array_equal(return_keys(jnp.array(placed), group, groups), rows)


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_no_group_of_keys_has_all_the_members_of_a_group_of_queries(group, groups, blocks):
  assert largest_overlap(group, groups, blocks) < 1


@pytest.mark.parametrize('group, groups, blocks', LAYOUTS)
def test_overlap_is_what_is_reported(group, groups, blocks):
  assert largest_overlap(group, groups, blocks) <= share_of_group(group, groups)
  if group % groups == 0:
    assert largest_overlap(group, groups, blocks) == share_of_group(group, groups) == 1 / groups


def test_without_other_groups_nothing_moves():
  rows = np.arange(12)
  np.testing.assert_array_equal(place_keys(rows, 4, 1), rows)
  assert share_of_group(4, 1) == 1


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_order_does_not_depend_on_how_many_processes_share_the_batch(processes):
  rows, group, groups = np.arange(64), 4, 4
  shared = [place_keys(part, group, groups) for part in np.split(rows, processes)]
  np.testing.assert_array_equal(np.concatenate(shared), place_keys(rows, group, groups))
