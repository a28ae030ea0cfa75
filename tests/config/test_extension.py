"""Which fields may grow in a run that is extended."""

import pytest

from configs import continual, finetune, pretrain
from mtpret_jax.config.extension import describe_growth, find_growth, list_lengths
from mtpret_jax.data.fingerprint import flatten
from tests.support.changed import change

VISIT = ['tasks.lung.steps', 'tasks.lung.epochs', 'tasks.lung.min_steps']


@pytest.mark.parametrize('config, fields', [
  (pretrain.get_config(), ['steps']),
  (continual.get_config(), ['rounds']),
  (change(continual.get_config(), order='joint'), ['rounds']),
  (change(continual.get_config(), order='sequential'), []),  # another number of rounds moves every visit
  (finetune.get_config('lung'), ['rounds', *VISIT]),
  (change(finetune.get_config('lung'), rounds=2), ['rounds'])])  # a longer visit would move the second one
def test_only_fields_that_leave_the_earlier_steps_in_place_may_grow(config, fields):
  assert list_lengths(flatten(config.to_dict())) == fields


@pytest.mark.parametrize('changes, grown', [
  (dict(rounds=2), {'rounds': (1, 2)}), ({'tasks.lung.steps': 400}, {'tasks.lung.steps': (300, 400)}),
  ({'tasks.lung.epochs': 2.0}, {'tasks.lung.epochs': (1.0, 2.0)}), ({'tasks.lung.steps': 200}, {}), (dict(seed=1), {}),
  ({'tasks.lung.steps': 0}, {})])
def test_a_field_grows_if_its_number_does(changes, grown):
  before = finetune.get_config('lung')
  assert find_growth(flatten(before.to_dict()), flatten(change(before, **changes).to_dict())) == grown


def test_steps_in_place_of_epochs_are_no_growth():
  before = flatten(finetune.get_config('real,lung').to_dict())
  assert find_growth(before, before | {'tasks.lung.steps': 10_000}) == {}


def test_more_rounds_are_as_good_as_rounds_from_the_start_and_more_steps_are_not():
  assert 'the result is that of a run with this many rounds' in describe_growth({'rounds': (2, 3)}, 12)
  assert 'From step 300 on' in describe_growth({'tasks.lung.steps': (300, 400), 'rounds': (1, 2)}, 300)
