import collections
import random

from tfds_builders.common import splits

PAIRS = [(f'patient{i}', f'stratum{i % 7}') for i in range(7 * 43)]


def test_files_in_another_order_give_the_same_splits():
  shuffled = PAIRS * 2
  random.Random(1).shuffle(shuffled)
  assert splits.split_by_patient(shuffled) == splits.split_by_patient(PAIRS)


def test_each_stratum_is_split_80_10_10_within_rounding():
  side = splits.split_by_patient(PAIRS)
  for stratum in {stratum for _, stratum in PAIRS}:
    counts = collections.Counter(side[patient] for patient, its in PAIRS if its == stratum)
    assert counts == {'train': 35, 'validation': 4, 'test': 4}


def test_a_stratum_of_three_patients_reaches_every_split():
  side = splits.split_by_patient([*PAIRS, ('a', 'rare'), ('b', 'rare'), ('c', 'rare')])
  assert {side[patient] for patient in 'abc'} == {'train', 'validation', 'test'}


def test_strata_too_small_to_split_are_split_together():
  side = splits.split_by_patient([(f'p{i}', f'alone{i}') for i in range(30)])
  assert collections.Counter(side.values()) == {'train': 24, 'validation': 3, 'test': 3}


def test_a_patient_with_images_of_two_strata_is_in_one_split():
  pairs = [(f'patient{i}', stratum) for i in range(20) for stratum in ('normal', 'abnormal')]
  assert collections.Counter(splits.split_by_patient(pairs).values()) == {'train': 16, 'validation': 2, 'test': 2}


def test_new_patients_hardly_move_the_others():
  before = splits.split_by_patient([(f'patient{i}', '') for i in range(5000)])
  after = splits.split_by_patient([(f'patient{i}', '') for i in range(5100)])
  assert sum(before[patient] != after[patient] for patient in before) < 0.01 * len(before)


def test_the_splits_of_these_patients_are_those_published():
  # Update only together with VERSION in tfds_builders/common/dataset.py: scores on other splits are other scores.
  side = splits.split_by_patient([(str(i), '') for i in range(20)])
  assert {split: sorted(int(p) for p in side if side[p] == split) for split in ('validation', 'test')} == {
    'validation': [4, 7], 'test': [15, 18]}
