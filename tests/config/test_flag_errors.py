"""A mistake in a flag is answered with the rule and what to type."""

import pytest

from configs import finetune, pretrain
from mtpret_jax.config import flag_errors
from mtpret_jax.config.fields import list_fields


@pytest.mark.parametrize('message, added', [
  ("unknown variant 'smok' of configs/pretrain.py: choose one of embedded, smoke, real", "; did you mean 'smoke'?"),
  ("unknown task 'lng': choose one of pneumonia, lung, knee", "; did you mean 'lung'?"),
  ("unknown task 'x': choose one of pneumonia, lung, knee", '')])
def test_a_variant_or_task_that_is_nearly_right_is_suggested(message, added):
  assert flag_errors.add_suggestion(message) == message + added


@pytest.mark.parametrize('message, shown', [
  ("flag --config.steps=abc: invalid literal for int() with base 10: 'abc'", 'a whole number'),
  ("flag --config.steps=abc: could not convert string to float: 'abc'", 'a number')])
def test_a_value_that_is_no_number_is_said_in_words(message, shown):
  assert flag_errors.add_suggestion(message) == f'--config.steps=abc: it must be {shown}'


@pytest.mark.parametrize('value, shown', [
  ('(0.6 1.0)', ', such as --config.range="(0.6, 1.0)"'), ('a "b"', ' of values with commas between them')])
def test_what_is_no_tuple_is_shown_as_one(value, shown):
  message = flag_errors.add_suggestion(f'flag --config.range={value}: Error while parsing string: {value} as tuple. If '
                                       'you intended to pass the argument as a single element, use quotes')
  assert message == f'--config.range={value}: it must be a tuple{shown}'


@pytest.mark.parametrize('has_config', [False, True])
def test_a_config_without_its_flag_is_suggested(has_config):
  shown = flag_errors.explain_argument('configs/pretrain.py:smoke', has_config)
  assert shown == 'did you mean --config=configs/pretrain.py:smoke?'


@pytest.mark.parametrize('has_config, shown', [
  (False, 'arguments must be flags, such as --config.batch=64'),
  (True, 'arguments must be flags, such as --config.batch=64; a variant comes after a colon, as in '
         '--config=configs/pretrain.py:smoke')])
def test_an_argument_that_is_no_flag_is_explained(has_config, shown):
  assert flag_errors.explain_argument('smoke', has_config) == shown


def test_a_config_file_that_is_nearly_right_is_suggested():
  assert flag_errors.add_suggestion("[Errno 2] No such file or directory: 'configs/pretrian.py'") == (
    "there is no config file 'configs/pretrian.py': did you mean 'configs/pretrain.py'?")


@pytest.mark.parametrize('config, field, near', [
  ('table.py:smoke', 'init', 'inits'), ('pretrain.py', 'learning_rate', 'optimiser.learning_rate'),
  ('pretrain.py', 'lr', 'optimiser.learning_rate'), ('pretrain.py', 'batch_size', 'batch'),
  ('pretrain.py', 'moco.queu', 'moco.queue'), ('finetune.py:lung', 'tasks.lung.backbone', 'trunk'),
  ('pretrain.py', 'xyzzy', '')])
def test_the_field_that_is_most_likely_meant(config, field, near):
  flag = f'--config.{field}=1'
  assert flag_errors.find_near_field(flag, ['main', f'--config=configs/{config}', flag]) == near


def test_all_names_of_other_libraries_are_of_fields():
  fields = {field.rpartition('.')[2] for module in (pretrain, finetune) for field in list_fields(module.get_config())}
  assert set(flag_errors.ELSEWHERE.values()) <= fields


def test_a_dataset_in_place_of_a_variant_is_answered_with_its_flag():
  with pytest.raises(ValueError, match='finetune.py:own with --config.task.dataset=clinic$'):
    finetune.get_config('own,clinic')
