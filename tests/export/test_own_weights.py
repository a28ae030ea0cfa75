"""A run exported to safetensors is read in place of the run, with the same weights and tasks."""

import json
import zlib

import jax
import numpy as np
import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import operating_points
from mtpret_jax.export import own_weights
from mtpret_jax.export.trained import read_run
from mtpret_jax.runtime.atomic_io import write_json
from tests.support.drawn_models import ABOUT, TASK, make_trained, make_zeros

POINTS = {TASK: {'temperature': 2.5, 'thresholds': {'opacity': 0.3}, 'rule': 'youden'}}


def make_numbers(name, leaf):
  """Values that differ between arrays and within them, faster than drawn ones."""
  return (np.arange(np.prod(leaf.shape), dtype=np.float32) + zlib.crc32(name.encode()) % 997).reshape(leaf.shape)


def assert_equal(one, other):
  for tree, copy in ((one.params, other.params), (one.stats, other.stats)):
    jax.tree.map(np.testing.assert_array_equal, tree, copy)


def as_json(trained):
  return json.dumps({name: task.as_json() for name, task in trained.tasks.items()})


@pytest.mark.parametrize('kind', ABOUT)
def test_the_weights_and_the_task_come_back(kind, tmp_path):
  trained = make_trained(kind, make_leaf=make_numbers)
  own_weights.write(trained, [TASK], tmp_path)
  copy = read_run(tmp_path)
  assert_equal(trained, copy)
  assert as_json(copy) == as_json(trained) and copy.config.trunk == trained.config.trunk
  assert (copy.step, copy.chosen) == (12, 'best')
  with pytest.raises(ConfigError, match='has only the best state of its run: .*--state=last'):
    read_run(tmp_path, state='last')


def test_a_run_of_several_tasks_keeps_the_chosen_ones(two_tasks_run, tmp_path):
  workdir, state = two_tasks_run
  trained = read_run(workdir)
  assert list(trained.tasks) == ['bone_age', 'pneumonia'] and trained.chosen == 'last'
  own_weights.write(trained, ['pneumonia'], tmp_path)
  copy = read_run(tmp_path)
  assert list(copy.tasks) == list(copy.config.tasks) == ['pneumonia'] and copy.chosen == 'last'
  assert copy.params.keys() == {'trunk', 'pneumonia'}
  for one, other in zip(trained.take_trunk('pneumonia'), copy.take_trunk('pneumonia'), strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  jax.tree.map(np.testing.assert_array_equal, copy.params['trunk'], state.params['trunk'])
  before, after = (sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
                   for folder in (workdir / 'checkpoints', tmp_path))
  assert after < before / 3  # without the optimiser's two moments


def test_the_operating_points_go_along(tmp_path):
  run, copy = tmp_path / 'run', tmp_path / 'copy'
  for folder in (run, copy):
    folder.mkdir()
  own_weights.write(make_trained('classification', make_leaf=make_zeros), [TASK], run)
  write_json(run / operating_points.FILE, POINTS)
  own_weights.write(read_run(run), [TASK], copy)
  assert read_run(copy).read_temperature(TASK) == 2.5


def test_stage_1_keeps_its_trunk(tmp_path):
  trained = make_trained('trunk', make_leaf=make_numbers)
  own_weights.write(trained, [], tmp_path)
  copy = read_run(tmp_path)
  assert not copy.tasks
  assert_equal(trained, copy)


def test_weights_of_another_config_are_refused(tmp_path):
  own_weights.write(make_trained('classification', make_leaf=make_zeros), [TASK], tmp_path)
  (tmp_path / 'config.json').write_text((tmp_path / 'config.json').read_text().replace(f'"{TASK}"', '"other"'))
  (tmp_path / 'model.json').write_text((tmp_path / 'model.json').read_text().replace(f'"{TASK}"', '"other"'))
  with pytest.raises(ConfigError, match="no 'other'"):
    read_run(tmp_path)
