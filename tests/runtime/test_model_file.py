"""`model.json`: a run's heads can be made again without its training data."""

import json
import shutil

import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import model_file
from mtpret_jax.tasks.dataset import open_task
from mtpret_jax.tasks.fitted import fit_task
from tests.support.changed import change


@pytest.fixture
def elsewhere(two_tasks, tmp_path):
  """The config of the run, where none of its data is."""
  return change(two_tasks, **{'data.dir': str(tmp_path / 'none')})


def describe(tasks):
  return json.dumps({name: task.as_json() for name, task in tasks.items()})


def test_a_run_keeps_what_its_heads_took_from_the_training_data(two_tasks, two_tasks_run, elsewhere):
  tasks = model_file.read_tasks(two_tasks_run[0], elsewhere)
  assert list(tasks) == ['bone_age', 'pneumonia']
  fitted = {name: fit_task(two_tasks, name, open_task(two_tasks, name, 'train')) for name in tasks}
  assert describe(tasks) == describe(fitted)
  assert tasks['bone_age'].head.mean > 1 and tasks['pneumonia'].about['findings'] == ['pneumonia']
  assert (tasks['bone_age'].size, tasks['bone_age'].view) == (36, 32)


def test_a_run_without_the_file_needs_its_data(two_tasks, two_tasks_run, elsewhere, tmp_path):
  assert describe(model_file.read_tasks(tmp_path, two_tasks)) == describe(
    model_file.read_tasks(two_tasks_run[0], two_tasks))
  with pytest.raises(ConfigError, match='has no model.json.*rsna_bone_age is not prepared'):
    model_file.read_tasks(tmp_path, elsewhere)


@pytest.mark.parametrize('damage', [
  lambda text: text[:100], lambda text: '[]', lambda text: '{"tasks": {"bone_age": 3}}',
  lambda text: text.replace('"regression"', '"regresion"'), lambda text: text.replace('"size": 36', '"size": "x"')])
def test_a_damaged_file_is_named(two_tasks, two_tasks_run, tmp_path, damage):
  path = shutil.copy(two_tasks_run[0] / 'model.json', tmp_path)
  (tmp_path / 'model.json').write_text(damage((tmp_path / 'model.json').read_text()))
  with pytest.raises(ConfigError, match=f'{path} is damaged'):
    model_file.read_tasks(tmp_path, two_tasks)
