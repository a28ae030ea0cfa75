"""Options of loss, sampler and prediction: checked before a run, refused where a kind of task lacks them."""

import pytest

from configs import finetune
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.validate import check_config


def check(task, **fields):
  config = finetune.get_config(task)
  config.update_from_flattened_dict({field.replace('TASK', task): value for field, value in fields.items()})
  check_config(config, devices=1, processes=1)


@pytest.mark.parametrize('task, fields', [
  ('pneumonia', {'tasks.TASK.loss.class_weights': 'balanced', 'tasks.TASK.loss.focal': 2.0,
                 'tasks.TASK.sampler': 'balanced', 'tasks.TASK.uncertain': 'soft'}),
  ('lung', {'tasks.TASK.loss.class_weights': '1,3.5', 'tasks.TASK.sampler': 'balanced', 'flips': True}),
  ('tuberculosis', {'tasks.TASK.sampler': 'balanced', 'optimiser.ema': 0.999, 'flips': True}),
  ('bone_age', {'flips': True, 'operating_point': '0.95'}),
  ('pneumonia', {'temperature': True, 'operating_point': '.9'})])
def test_options_that_a_kind_of_task_has_are_accepted(task, fields):
  check(task, **fields)


@pytest.mark.parametrize('task, field, value, remedy', [
  ('lung', 'tasks.TASK.loss.focal', 2.0, '=0.0'), ('bone_age', 'tasks.TASK.loss.class_weights', 'balanced', '=none'),
  ('tuberculosis', 'tasks.TASK.uncertain', 'ones', '=ignore'),
  ('bone_age', 'tasks.TASK.sampler', 'balanced', '=shuffled'),
  ('lung', 'temperature', True, '=False')])
def test_options_that_a_kind_of_task_lacks_are_refused_with_the_remedy(task, field, value, remedy):
  with pytest.raises(ConfigError, match='(is|are|is not) for .*try --config.'):
    check(task, **{field: value})
  try:
    check(task, **{field: value})
  except ConfigError as error:
    assert str(error).endswith(f'--config.{field.replace("TASK", task)}{remedy}')


@pytest.mark.parametrize('field, value', [
  ('tasks.TASK.loss.class_weights', 'even'), ('tasks.TASK.loss.class_weights', '1,0'),
  ('tasks.TASK.loss.class_weights', '1,nan'), ('tasks.TASK.loss.focal', -1.0), ('tasks.TASK.sampler', 'random'),
  ('tasks.TASK.uncertain', 'maybe'), ('operating_point', '1.5'), ('operating_point', '0'), ('operating_point', 'best'),
  ('optimiser.ema', 1.0)])
def test_values_that_no_option_has_are_refused_in_words(field, value):
  with pytest.raises(ConfigError, match=f'{field.replace("TASK", "pneumonia")}.*(it must be|choose one of)'):
    check('pneumonia', **{field: value})
