"""The config of an earlier run: read back as it was, and with the tasks in the order of the config file."""

import pytest
from ml_collections import ConfigDict

from configs import continual, mtpret, tasks
from mtpret_jax import stages
from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.runtime import logging

UNSORTED = ['tuberculosis', 'abnormality', 'pneumonia', 'lung']


@pytest.fixture
def config():
  config = continual.get_config()
  config.tasks = tasks.embedded(UNSORTED, steps=2)
  config.update(order='cyclic', rounds=2)
  return config


def list_visits(config):
  return [visit.task for visit in stages.make_plan(config, dict.fromkeys(config.tasks, 100)).visits]


def test_visits_follow_the_order_in_which_the_config_lists_the_tasks(config):
  assert list_visits(config) == 2 * UNSORTED
  config.order = 'sequential'
  assert list_visits(config) == UNSORTED
  assert list(continual.get_config().tasks) == list(mtpret.get_config().stages.continual.tasks) == list(tasks.muscle4)


def test_a_config_that_is_saved_and_read_back_keeps_the_order_of_its_tasks(config, tmp_path):
  logging.save_config(tmp_path, config)
  again = saved.make_config(saved.read_config(tmp_path))
  assert list_visits(again) == list_visits(config)
  assert flatten(again.to_dict()) == flatten(config.to_dict())


def test_another_order_of_the_tasks_is_another_run(config):
  fields = config.to_dict()
  fields['tasks'] = dict(sorted(fields['tasks'].items()))
  assert ConfigDict(fields) == ConfigDict(config.to_dict())
  assert flatten(fields) != flatten(config.to_dict())


def test_a_config_that_differs_from_its_checkpoint_is_refused_except_in_incidental_fields():
  fields = {'data': {'datasets': ['mura']}, 'keep_momentum': 0.5, 'keep': 2, 'probe': {'images': 8}}
  saved.check_unchanged(fields, {'data.datasets': ['mura'], 'data.mura': '1.0.0', 'keep_momentum': 0.5}, 'run')
  with pytest.raises(ConfigError, match="differ in 'keep_momentum'"):
    saved.check_unchanged(fields, {'data.datasets': ['mura'], 'data.mura': '1.0.0'}, 'run')
