"""Uncertain labels: training makes of them what the policy says, evaluation leaves them out."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import Source
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.dataset import find_usable
from mtpret_jax.tasks.split_checks import check_labels, check_uncertain

KIND = find_kind('classification')
ABOUT = {'findings': ['mass', 'nodule', 'hernia'], 'relation': 'independent', 'uncertain': True}
RECORD = {'image_id': b'a7', 'present': np.float32([1, 0, 0]), 'label_mask': np.array([True, False, False]),
          'uncertain': np.array([False, True, False])}


def configure(policy):
  return ConfigDict(dict(kind='classification', dataset='clinic', findings=(), among='', uncertain=policy))


@pytest.mark.parametrize('policy, nodule, known', [('ignore', 0, False), ('zeros', 0, True), ('ones', 1, True)])
def test_a_policy_decides_what_an_uncertain_label_is(policy, nodule, known):
  row = KIND.read_label(ABOUT, configure(policy), RECORD)
  np.testing.assert_array_equal(row['present'], np.float32([1, nodule, 0]))
  assert row['present'].dtype == np.float32 and row['label_mask'].tolist() == [True, known, False]
  evaluated = KIND.read_label(ABOUT, KIND.fit_labels(configure(policy), []), RECORD)
  assert evaluated['label_mask'].tolist() == [True, False, False]


def test_a_soft_label_is_a_number_of_the_range_and_the_same_whenever_the_image_is_read():
  values = [KIND.read_label(ABOUT, configure('soft'), RECORD | {'image_id': f'a{index}'.encode()})['present'][1]
            for index in range(200)]
  assert min(values) >= 0.55 and max(values) <= 0.85 and np.mean(values) == pytest.approx(0.7, abs=0.02)
  again = [KIND.read_label(ABOUT, configure('soft'), RECORD)['present'] for _ in range(2)]
  np.testing.assert_array_equal(*again)
  assert again[0][0] == 1 and again[0][2] == 0


def test_only_training_can_use_an_image_with_uncertain_labels_alone():
  record = RECORD | {'label_mask': np.zeros(3, bool)}
  assert KIND.find_defect(ABOUT, configure('ignore'), record, 'train') == 'no known finding'
  assert KIND.find_defect(ABOUT, configure('ones'), record, 'train') == ''
  assert KIND.find_defect(ABOUT, configure('ones'), record, 'test') == 'no known finding'


def test_the_labels_that_only_training_makes_use_of_do_not_make_a_test_split_scorable():
  labels = [RECORD | {'patient': b'a'},
            RECORD | {'patient': b'b', 'label_mask': np.zeros(3, bool), 'uncertain': np.array([True, False, False])}]
  config = ConfigDict({'tasks': {'task': configure('zeros')}, 'data': {'split': 'patient', 'fraction': 1.0}})
  check_labels(config, 'task', 'train', ABOUT, labels)
  with pytest.raises(ConfigError, match=r'the test split of clinic .* \(only mass\)'):
    check_labels(config, 'task', 'test', ABOUT, labels)


def test_the_records_of_a_split_keep_what_is_uncertain():
  source = Source('clinic', 'train', '1.0.0', ABOUT, [RECORD | {'patient': b'a'}])
  assert find_usable('task', configure('ones'), source).labels[0]['uncertain'].tolist() == [False, True, False]


def test_a_policy_is_refused_where_no_label_is_uncertain():
  check_uncertain('task', configure('ones'), ABOUT)
  check_uncertain('task', configure('ignore'), {})
  with pytest.raises(ConfigError, match="clinic marks no label as uncertain.*try --config.tasks.task.uncertain=ignore"):
    check_uncertain('task', configure('ones'), {'findings': ['mass']})


def test_records_of_an_earlier_version_read_as_before():
  row = KIND.read_label(ABOUT, configure('ones'), {name: RECORD[name] for name in RECORD if name != 'uncertain'})
  assert row['label_mask'].tolist() == [True, False, False]
