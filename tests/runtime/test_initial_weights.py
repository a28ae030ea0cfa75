"""Where a trunk comes from: what is taken, and what is refused in one line."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from mtpret_jax import train
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.export import own_weights
from mtpret_jax.export.trained import read_run
from mtpret_jax.runtime.initial_weights import init_name_of, read_initial_weights
from mtpret_jax.runtime.sharding import make_mesh
from mtpret_jax.stages import make_run
from mtpret_jax.step import init_state, make_optimiser
from tests.support.changed import change


def refuse(config, **fields):
  with pytest.raises(ConfigError) as error:
    read_initial_weights(change(config, **fields))
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.fixture
def one_task(two_tasks, two_tasks_run):
  """Stage 3 on pneumonia, from the trunk of the stage-2 run."""
  workdir, _ = two_tasks_run
  config = change(two_tasks, init='mtpret', init_from=str(workdir), order='cyclic', rounds=1)
  with config.unlocked():
    del config.tasks['bone_age']
  return config


@pytest.mark.parametrize('said, fields', [
  ('moco', {'objective': 'moco', 'data': {'datasets': ['mura']}}),
  ('md_moco', {'objective': 'moco', 'data': {'datasets': ['mura', 'tbx11k']}}),
  ('mtpret', {'memory': {'anchor': 'previous_visit'}, 'order': 'cyclic_reshuffled'}),
  ('muscle--', {'memory': {'anchor': 'none'}, 'order': 'sequential'}),
  ('joint', {'memory': {'anchor': 'none'}, 'order': 'joint'}),
  ('schedule_off', {'memory': {'anchor': 'previous_visit'}, 'order': 'sequential'}),
  ('memory_off', {'memory': {'anchor': 'none'}, 'order': 'cyclic_reshuffled'}),
  ('other', {'memory': {'anchor': 'previous_visit'}, 'order': 'joint'}),
  ('other', {'memory': {'anchor': 'none'}, 'order': 'cyclic'})])
def test_a_run_is_called_what_the_papers_call_it(said, fields):
  assert init_name_of({'objective': 'multitask'} | fields) == said


def test_the_run_starts_with_the_very_trunk_of_the_checkpoint(one_task, two_tasks_run):
  _, last = two_tasks_run
  state = init_state(make_run(one_task).objective, make_optimiser(one_task.optimiser), make_mesh(), 0,
                     read_initial_weights(one_task))
  jax.tree.map(np.testing.assert_array_equal, state.params['trunk'], last.params['trunk'])
  jax.tree.map(np.testing.assert_array_equal, state.carry['anchor'], last.params['trunk'])
  jax.tree.map(np.testing.assert_array_equal, state.carry['stats']['trunk'],
               {'pneumonia': last.carry['stats']['trunk']['pneumonia']})
  assert (state.params['pneumonia']['out']['kernel'] != last.params['pneumonia']['out']['kernel']).any(), 'fresh head'


def test_an_exported_run_gives_the_same_trunk(one_task, two_tasks_run, tmp_path):
  workdir, _ = two_tasks_run
  own_weights.write(read_run(workdir), ['pneumonia'], tmp_path)
  before, after = (read_initial_weights(change(one_task, init_from=str(path)))['trunk'] for path in (workdir, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_head_starts_from_the_arrays_that_are_given(one_task):
  """And with random weights where the file has none, such as a last layer for other classes."""
  weights = read_initial_weights(one_task)
  head = {'pneumonia': ({'out': {'bias': np.full(1, 7, np.float32)}}, {})}
  objective, optimiser = make_run(one_task).objective, make_optimiser(one_task.optimiser)
  random, filled = (init_state(objective, optimiser, make_mesh(), 0, given).params['pneumonia']['out']
                    for given in (weights, weights | head))
  assert filled['bias'].tolist() == [7] and random['bias'].tolist() != [7]
  np.testing.assert_array_equal(filled['kernel'], random['kernel'])


def test_training_asks_for_the_heads_of_its_tasks(one_task, monkeypatch, tmp_path):
  def read(config, tasks, quiet):
    assert not quiet, 'a new run says where its weights are from'
    raise ConfigError(f'asked for {", ".join(tasks)}')
  monkeypatch.setattr(train, 'read_initial_weights', read)
  with pytest.raises(ConfigError, match='asked for pneumonia'):
    train.train(make_run(one_task), one_task, tmp_path)


def test_statistics_are_those_of_the_own_task_else_the_mean(one_task, two_tasks, two_tasks_run):
  _, last = two_tasks_run
  kept = last.carry['stats']['trunk']

  def read_mean(config):
    return read_initial_weights(config)['trunk'][1]['norm1']['mean']
  np.testing.assert_array_equal(read_mean(one_task), kept['pneumonia']['norm1']['mean'])
  mean = (kept['pneumonia']['norm1']['mean'] + kept['bone_age']['norm1']['mean']) / 2
  stranger = one_task.copy_and_resolve_references()
  with stranger.unlocked():
    stranger.tasks = {'knee': stranger.tasks.pneumonia}
  assert (kept['pneumonia']['norm1']['mean'] != kept['bone_age']['norm1']['mean']).any()
  for config in (stranger, change(two_tasks, init='mtpret', init_from=one_task.init_from)):
    np.testing.assert_allclose(read_mean(config), mean, rtol=1e-6)


def test_a_trunk_that_does_not_fit_names_the_first_parameter_that_differs(one_task):
  message = refuse(one_task, trunk='resnet18')
  assert 'trunk parameter stages.0.1.conv1.kernel has shape None' in message
  assert '--config.trunk=one_block' in message


def test_a_run_that_is_not_what_init_says_is_refused(one_task):
  assert "is 'mtpret'" in refuse(one_task, init='md_moco')
  assert '--config.init=mtpret' in refuse(one_task, init='muscle--')
  read_initial_weights(change(one_task, init='other'))


def test_one_dataset_is_not_md_moco(one_task, tmp_path):
  trained = {'objective': 'moco', 'trunk': 'one_block', 'data': {'datasets': ['mura']}}
  (tmp_path / 'config.json').write_text(json.dumps({'config': trained}))
  assert "is 'moco'" in refuse(one_task, init='md_moco', init_from=str(tmp_path))


def test_a_run_without_a_checkpoint_is_refused(one_task, two_tasks_run, tmp_path):
  workdir, _ = two_tasks_run
  (tmp_path / 'config.json').write_text((workdir / 'config.json').read_text())
  assert 'is not the workdir of a run' in refuse(one_task, init_from=str(tmp_path))


def test_a_folder_or_file_that_is_not_there_is_refused(one_task, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'broken.safetensors').write_bytes(b'no weights')
  for name in ('empty', 'missing.safetensors', 'broken.safetensors'):
    assert re.search(rf'init_from=.*{name}', refuse(one_task, init_from=str(tmp_path / name)))


@pytest.mark.parametrize('fields, said', [
  (dict(init='scratch', init_from='a.safetensors'), 'does not use init_from'),
  (dict(init='imagenet', init_from=''), 'needs --config.init_from'),
  (dict(init='xavier'),
   "unknown init 'xavier': choose one of scratch, imagenet, moco, md_moco, muscle--, mtpret, joint, "
   'schedule_off, memory_off, other')])
def test_init_and_init_from_belong_together(fields, said, one_task):
  assert said in refuse(one_task, **fields)


def test_without_init_the_name_of_the_run_is_suggested(one_task):
  name = init_name_of(json.loads((pathlib.Path(one_task.init_from) / 'config.json').read_text())['config'])
  assert f'set --config.init={name}, or leave init_from empty' in refuse(one_task, init='scratch')


def test_scratch_is_random(one_task):
  assert read_initial_weights(change(one_task, init='scratch', init_from='')) is None
