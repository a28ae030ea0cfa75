"""The command that a run suggests at its end."""

import importlib
import shlex

import pytest

from configs import continual, finetune, mtpret, presets, pretrain
from mtpret_jax.config.validate import check_fields
from mtpret_jax.report import next_command
from mtpret_jax.report.next_command import suggest_next
from mtpret_jax.runtime.initial_weights import check_init
from tests.support.changed import change


def make_run(module, variant, **fields):
  """The config of a finished run, as the run has it: without a preset, and with its datasets."""
  config = module.get_config(variant)
  config.unlock().update_from_flattened_dict(fields)
  config = presets.apply_preset(config) if 'preset' in config else config
  if config.objective == 'multitask':
    config.data.datasets = tuple(task.dataset for task in config.tasks.values())
  return config


def parse(command):
  """The config of a training command."""
  *program, config = shlex.split(command)[:4]
  assert program == ['python', '-m', 'mtpret_jax.main']
  path, _, variant = config.removeprefix('--config=').partition(':')
  config = importlib.import_module(path.removesuffix('.py').replace('/', '.')).get_config(variant)
  config.unlock().update_from_flattened_dict(
    dict(flag.removeprefix('--config.').split('=', 1) for flag in shlex.split(command)[4:]))
  return presets.apply_preset(config) if 'preset' in config else config


@pytest.mark.parametrize('module, variant, fields, task', [
  (pretrain, 'embedded', {}, 'pneumonia'), (pretrain, 'smoke', {}, 'smoke,pneumonia'),
  (pretrain, 'smoke', {'data.datasets': ('mura',), 'trunk': 'resnet34', 'workdir': 'my runs/a'}, 'smoke,abnormality'),
  (pretrain, 'muscle9', {}, 'real,pneumonia'), (pretrain, 'real', {'data.datasets': ('knee_oa',)}, 'real,knee'),
  (continual, 'smoke', {}, 'smoke,pneumonia'), (continual, 'lung,jaw', {'order': 'joint'}, 'lung')])
def test_the_suggested_command_starts_from_the_run_and_is_accepted(module, variant, fields, task, tmp_path):
  run = make_run(module, variant, **fields)
  command = suggest_next(run)
  assert f' --config=configs/finetune.py:{task} ' in command
  config = change(parse(command), workdir=str(tmp_path))
  assert config.init_from == run.workdir and config.trunk == run.trunk
  check_fields(config)
  check_init(config, {run.workdir: run})


@pytest.mark.parametrize('labels, expected', [
  ({'findings': ['nodule']}, 'own --config.preset=base --config.task.dataset=clinic'),
  ({'findings': []}, 'real,abnormality --config.preset=base')])
def test_a_labelled_dataset_of_ones_own_comes_first(labels, expected, monkeypatch):
  monkeypatch.setattr(next_command.build, 'is_prepared', lambda path: True)
  monkeypatch.setattr(next_command.build, 'read_metadata', lambda path: labels)
  run = make_run(pretrain, 'real', preset='base', **{'data.datasets': ('mura', 'clinic'), 'data.archives': 'mine'})
  assert suggest_next(run).startswith(f'python -m mtpret_jax.main --config=configs/finetune.py:{expected} '
                                      '--config.data.archives=mine --config.init=md_moco')


def test_after_fine_tuning_it_is_prediction_and_after_a_recipe_nothing():
  run = make_run(finetune, 'smoke,lung', workdir='my runs/a')
  assert suggest_next(run) == "python -m mtpret_jax.predict --run='my runs/a' IMAGES"
  assert suggest_next(mtpret.get_config('smoke')) == ''


def test_without_a_dataset_that_has_a_task_nothing_is_suggested():
  assert suggest_next(make_run(pretrain, 'smoke', **{'data.datasets': ('nih_chest_xray',)})) == ''
