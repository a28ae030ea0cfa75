"""Hostile configs, weights and workdirs. Each case was found by the fuzzer and is given in its shortest form."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from benchmarks.fuzz.configs import parse
from benchmarks.fuzz.weights import CANARY, Payload, join
from configs import continual, finetune, mtpret, pretrain
from mtpret_jax import stages
from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.validate import check_config
from mtpret_jax.evaluation import test_scores, validation
from mtpret_jax.models import torchvision_weights
from mtpret_jax.report import recipe
from mtpret_jax.runtime import initial_weights, lineage, prepare_data
from mtpret_jax.runtime.atomic_io import read_json_lines
from tests.support.changed import change


def refuse(config, devices=1, **fields):
  """The line with which a config is refused, and its remedy {field: value}."""
  with pytest.raises(ConfigError) as caught:
    check_config(change(config, **fields), devices=devices, processes=1)
  assert str(caught.value).isprintable()
  return str(caught.value), caught.value.remedy


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('field, value', [
  ('batch', 7), ('batch', 0), ('batch', 300), ('batch', 10**9), ('moco.group', 3), ('moco.group', 0),
  ('moco.group', 10**30), ('moco.queue', 0), ('moco.queue', 10**9),
  ('moco.shuffle_groups', 3), ('moco.shuffle_groups', -1), ('moco.shuffle_groups', 2**31)])
def test_the_remedy_of_one_wrong_value_is_itself_accepted(field, value, devices):
  config = change(pretrain.get_config(), batch=128, **{'moco.negatives': 'queue'})
  check_config(config, devices=devices, processes=1)
  words, remedy = refuse(config, devices, **{field: value})
  assert remedy and all(f'--config.{name}={wanted}' in words for name, wanted in remedy.items())
  check_config(change(config, **{field: value} | remedy), devices=devices, processes=1)


@pytest.mark.parametrize('field, value', [
  ('optimiser.learning_rate', float('nan')), ('optimiser.learning_rate', float('inf')), ('moco.temperature', 0.0),
  ('augment.crop_area', (0.9, 0.1)), ('augment.crop_area', (1,)), ('augment.crop_area', ('a', 'b')), ('save_every', 0),
  ('log_every', -1), ('seed', -1), ('seed', 2**63), ('data.threads', 0), ('data.dir', ''), ('probe.resamples', 0),
  ('workdir', 'a\0b'), ('workdir', '\udcff'), ('workdir', 'gs://bucket/run'), ('workdir', 'x' * 300),
  ('data.dir', '~/data'), ('name', 'a\nb'), ('data.datasets', ('../x',)), ('data.datasets', ('mura', 'mura')),
  ('data.weights', '1,nan,1,1,1'), ('data.phantoms.images', 0)])
def test_values_that_would_fail_later_are_refused_at_once(field, value):
  words, remedy = refuse(pretrain.get_config(), **{field: value})
  assert field.split('.')[-1] in words
  if remedy:
    check_config(change(pretrain.get_config(), **remedy), devices=1, processes=1)


@pytest.mark.parametrize('field, value', [
  ('tasks.tuberculosis.objects', 0), ('tasks.tuberculosis.head.anchor_sizes', ((8,), (16,))), ('rounds', 10**9),
  ('tasks.lung.head.dilations', (1, 2, 'x')), ('tasks.lung.head.output_stride', 7),
  ('tasks.tuberculosis.head.roi_sample', (16, 64)), ('tasks.lung.steps', 10**7), ('tasks.lung.kind', 'words')])
def test_task_configs_that_no_task_can_be_made_of_are_refused(field, value):
  words, remedy = refuse(continual.get_config(), **{field: value})
  assert field.split('.')[-1] in words
  if remedy:
    check_config(change(continual.get_config(), **{field: value} | remedy), devices=1, processes=1)


def test_another_kind_of_task_needs_the_fields_of_its_head():
  words, _ = refuse(continual.get_config(), **{'tasks.lung.kind': 'detection'})
  assert words.startswith('the config has no tasks.lung.head.')


def test_a_visit_of_an_epoch_counts_among_the_steps_of_a_run():
  config = change(continual.get_config(), **{'tasks.pneumonia.steps': 10**7, 'rounds': 1})
  config = change(config, **{f'tasks.{name}.steps': 0 for name in config.tasks if name != 'pneumonia'})
  words, remedy = refuse(config)
  fewer = change(config, **remedy)
  check_config(fewer, devices=1, processes=1)
  assert stages.make_plan(fewer, dict.fromkeys(fewer.tasks, 0)).steps == 10**7


def test_a_dataset_without_what_a_task_learns_from_is_refused_before_it_is_prepared():
  config = change(finetune.get_config('lung'), **{'tasks.lung.dataset': 'mura'})
  with pytest.raises(ConfigError, match='mura has no labels for segmentation, only for classification'):
    prepare_data.check_annotations(config)


def test_a_config_that_lacks_a_field_or_has_another_objective_says_so():
  config = pretrain.get_config()
  del config.augment['blur']
  assert 'has no augment.blur' in refuse(config)[0]
  assert 'needs the field tasks' in refuse(pretrain.get_config(), objective='multitask')[0]
  for wrong in (3, {'a': 3}, {'a': {'objective': 'recipe'}}):
    recipe = ConfigDict(dict(objective='recipe', workdir='runs', stages=wrong))
    assert 'stages of a recipe must be' in refuse(recipe)[0]
  assert 'unknown objective' in refuse(pretrain.get_config(), objective='recip')[0]


def test_a_mistake_in_the_last_stage_of_the_recipe_is_found_before_the_first(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  config = mtpret.get_config('smoke')
  for name, stage in config.stages.items():
    stage.workdir = str(tmp_path / name)
    stage.data.dir = str(tmp_path / 'data')
    if stage.init_from:
      stage.init_from = str(tmp_path / ('pretrain' if name == 'continual' else 'continual'))
  config.workdir = str(tmp_path / 'all')
  stages.check_run(config)
  config.stages.tuberculosis.tasks.tuberculosis.batch = 7
  with pytest.raises(ConfigError, match=r'stage tuberculosis: .*--config\.stages\.tuberculosis\.tasks\.tuberculosis'):
    stages.check_run(config)


@pytest.mark.parametrize('text, expected', [
  ('1 / 0', 'ZeroDivisionError.*line 1'), ('import no_such_module', 'ModuleNotFoundError'),
  ('def get_config():\n  return None', 'returns NoneType'), ('def get_config():\n  return {}', 'returns dict')])
def test_a_file_that_is_not_a_config_is_reported_in_one_line(text, expected, tmp_path):
  (tmp_path / 'odd.py').write_text(text)
  config, output = parse([f'--config={tmp_path}/odd.py'])
  assert config is None and len(output.splitlines()) == 1
  assert re.search(expected, output)


# Weights

@pytest.fixture(scope='module')
def arrays(one_block):
  params, stats = torchvision_weights.trunk_shapes('one_block')
  return {torchvision_weights.name_in_torch(path): np.ones(torchvision_weights.torch_shape(leaf.shape), np.float32)
          for tree in (params, stats) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def refuse_weights(path):
  config = change(pretrain.get_config(), init='imagenet', init_from=str(path), trunk='one_block')
  with pytest.raises(ConfigError) as caught:
    initial_weights.read_initial_weights(config)
  assert str(caught.value).isprintable() and str(path) in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('name', ['conv1.weight', 'bn1.running_var'])
@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(name, value, arrays, tmp_path):
  spoilt = arrays[name].astype(np.float64)
  spoilt.flat[0] = value
  safetensors.numpy.save_file(arrays | {name: spoilt}, tmp_path / 'a.safetensors')
  assert f'{name} has impossible values' in refuse_weights(tmp_path / 'a.safetensors')


def test_a_negative_variance_is_refused(arrays, tmp_path):
  safetensors.numpy.save_file(arrays | {'bn1.running_var': -arrays['bn1.running_var']}, tmp_path / 'a.safetensors')
  assert 'negative variance' in refuse_weights(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('change_one', [
  lambda arrays: arrays | {'conv1.weight': np.ones((), np.float32)},
  lambda arrays: arrays | {'conv1.weight': arrays['conv1.weight'].astype(np.int8)},
  lambda arrays: arrays | {'a\nb': np.ones(3, np.float32)}, lambda arrays: arrays | {'': np.ones(3, np.float32)},
  lambda arrays: {}])
def test_parameters_of_another_kind_or_name_are_refused(change_one, arrays, tmp_path):
  safetensors.numpy.save_file(change_one(arrays), tmp_path / 'a.safetensors')
  refuse_weights(tmp_path / 'a.safetensors')


def test_a_file_that_claims_a_huge_array_is_refused_before_memory_is_taken(tmp_path):
  side = 2**19
  path = tmp_path / 'a.safetensors'
  path.write_bytes(join({'layer1.0.conv1.weight': {'dtype': 'F32', 'shape': [side, side],
                                                   'data_offsets': [0, 4 * side * side]}}, b''))
  try:
    os.truncate(path, path.stat().st_size + 4 * side * side)
  except OSError:
    pytest.skip('the file system has no files of a terabyte')
  assert 'too many for a trunk' in refuse_weights(path)


def test_weights_that_do_not_fit_the_memory_are_refused(tmp_path):
  """safetensors panics there, which is no Exception."""
  path, header = tmp_path / 'a.safetensors', b'{"a":{"dtype":"F32","shape":[250000000],"data_offsets":[0,1000000000]}}'
  with open(path, 'wb') as file:
    file.write(len(header).to_bytes(8, 'little') + header)
    file.truncate(8 + len(header) + 10 ** 9)  # a sparse file
  script = ('import pathlib, resource, sys; from mtpret_jax.models import torchvision_weights\n'
            'used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()\n'
            'resource.setrlimit(resource.RLIMIT_AS, (used + 15 * 10 ** 8, resource.RLIM_INFINITY))\n'
            'try: torchvision_weights.read(sys.argv[1])\n'
            'except ValueError as error: print(error)')
  done = subprocess.run([sys.executable, '-c', script, path], capture_output=True, text=True)
  assert done.returncode == 0 and done.stdout.startswith(f'{path} cannot be read: ')


@pytest.mark.parametrize('ending', ['.safetensors', '.pth'])
def test_a_pickle_never_runs(ending, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  harm = pickle.dumps(Payload())
  (tmp_path / f'a{ending}').write_bytes(struct.pack('<Q', len(harm)) + harm)
  refuse_weights(tmp_path / f'a{ending}')
  assert not (tmp_path / CANARY).exists()
  pickle.loads(harm)
  assert (tmp_path / CANARY).exists(), 'the payload works'


def test_weights_that_are_a_pipe_are_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'a.safetensors')
  assert 'is not a file' in refuse_weights(tmp_path / 'a.safetensors')


# Runs

def write_config(folder, **fields):
  folder.mkdir(exist_ok=True)
  config = change(pretrain.get_config(), **fields)
  (folder / saved.FILE).write_text(json.dumps({'config': config.to_dict()}))


def test_runs_that_claim_to_start_from_each_other_are_refused(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  write_config(one, init='md_moco', init_from=str(two))
  write_config(two, init='md_moco', init_from=str(one))
  with pytest.raises(ConfigError, match='back to itself'):
    lineage.trace_lineage({'init': 'md_moco', 'init_from': str(one)})


@pytest.mark.parametrize('text', ['', '{', '[]', '{"config": 5}', '[' * 100_000, '{"config": {"objective": []}}',
                                  '{"config": {"objective": "moco", "data": {"datasets": "mura"}}}',
                                  '{"config": {"objective": "moco", "data": {"datasets": ["mura"]}}}'])
def test_a_damaged_config_of_a_run_is_reported_in_one_line(text, tmp_path):
  (tmp_path / saved.FILE).write_text(text)
  for read in (lambda: lineage.trace_lineage({'init': 'other', 'init_from': str(tmp_path)}),
               lambda: test_scores.read_trained_config(str(tmp_path))):
    with pytest.raises(ConfigError, match='is damaged') as caught:
      read()
    assert str(caught.value).isprintable()


def test_a_config_of_a_run_with_a_dataset_twice_is_damaged(tmp_path):
  contents = {'config': {'objective': 'moco', 'data': {'datasets': ['mura', 'mura']}}}
  (tmp_path / saved.FILE).write_text(json.dumps(contents))
  with pytest.raises(ConfigError, match='is damaged: data.datasets is'):
    saved.read_config(tmp_path)


def test_a_config_that_is_not_the_checkpoints_is_refused(two_tasks_run, two_tasks, tmp_path):
  workdir, _ = two_tasks_run
  contents = json.loads((workdir / saved.FILE).read_text())['config']
  mark = test_scores.checkpoint.read_fingerprint(workdir)
  saved.check_unchanged(contents, mark, workdir)
  for field, value in (('trunk', 'resnet18'), ('order', 'joint'), ('tasks', {}), ('seed', None)):
    with pytest.raises(ConfigError, match=f'differ in .*{field}'):
      saved.check_unchanged(contents | {field: value}, mark, workdir)
  more = contents['data'] | {'datasets': [*contents['data']['datasets'], 'mura']}
  with pytest.raises(ConfigError, match='data.mura'):
    saved.check_unchanged(contents | {'data': more}, mark, workdir)


def test_scores_that_are_a_pipe_are_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'scores.json')
  config = ConfigDict({'workdir': str(tmp_path), 'stages': {'third': {'workdir': str(tmp_path)}}})
  with pytest.raises(ConfigError, match='scores.json is damaged: delete it'):
    recipe.finish(config)


def test_damaged_lines_of_a_run_are_left_out(tmp_path):
  good = {'step': 2, 'tasks': {'lung': {'headline': 'Dice', 'value': 0.5, 'sign': 1}}}
  bad = ['5', '[]', 'null', '{"step": "x"}', '{"step": 3, "tasks": {"lung": 5}}', '{"step": 3}', '[' * 100_000,
         '{"step": 4, "tasks": {"lung": {"headline": "Dice", "value": "x", "sign": 1}}}']
  (tmp_path / validation.FILE).write_text('\n'.join([*bad, json.dumps(good), '{"st']))
  assert validation.read(tmp_path) == [good]
  assert [line['step'] for line in read_json_lines(tmp_path / validation.FILE)] == [3, 3, 4, 2]
