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


# The rule `official`

PUBLISHED = [(f'{patient}_{i}', patient, stratum, 'test' if int(patient[7:]) % 5 == 0 else 'train')
             for patient, stratum in PAIRS for i in range(2)]


def test_a_published_test_set_stays_and_validation_is_a_tenth_of_the_training_patients_of_each_stratum():
  side = splits.split_by_archive(PUBLISHED)
  tested = {row[0] for row in PUBLISHED if row[3] == 'test'}
  assert {image for image, split in side.items() if split == 'test'} == tested
  split_of = {patient: {side[f'{patient}_0'], side[f'{patient}_1']} for patient, _ in PAIRS}
  assert all(len(names) == 1 for names in split_of.values())  # validation is cut by patient
  for stratum in {stratum for _, stratum in PAIRS}:
    counts = collections.Counter(min(split_of[patient]) for patient, its in PAIRS if its == stratum)
    assert counts['validation'] == round((counts['train'] + counts['validation']) / 10)
  assert side == splits.split_by_archive(PUBLISHED[::-1])


def test_a_published_validation_set_stays_and_unlisted_images_are_in_no_split():
  images = [('a', 'p', '', 'validation'), ('b', 'q', '', ''), *PUBLISHED]
  assert splits.split_by_archive(images) == {image: split for image, _, _, split in images if split}


def test_an_archive_that_publishes_no_split_has_none():
  assert splits.split_by_archive((image, patient, stratum, '') for image, patient, stratum, _ in PUBLISHED) == {}


def test_a_patient_in_two_published_splits_is_counted_and_not_moved():
  images = [*PUBLISHED, ('again', 'patient0', 'stratum0', 'train')]  # patient0 is in the test set
  side = splits.split_by_archive(images)
  assert side['patient0_0'] == 'test' and side['again'] != 'test'
  patient_of = {image: patient for image, patient, *_ in images}
  assert splits.count_shared_patients(patient_of, side) == 1
  assert splits.count_shared_patients(patient_of, splits.split_by_archive(PUBLISHED)) == 0
