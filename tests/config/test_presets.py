"""The field `preset`: one config holds the values of all presets, and flags may override any of them."""

import pickle

import pytest

from configs import continual, finetune, presets, pretrain, tasks
from mtpret_jax.runtime import own_task
from mtpret_jax.runtime.own_task import resolve


def flat(config):
  return {path: presets.find_section(config, path[:-1])[path[-1]] for path in presets.list_paths(config)}


def test_every_preset_is_known_to_a_run():
  assert own_task.PRESETS == presets.NAMES == tuple(tasks.NUMBERS)


@pytest.mark.parametrize('get_config, variant, make', [
  (finetune.get_config, 'real,lung', lambda preset: finetune.real('lung', preset)),
  (continual.get_config, 'muscle4', lambda preset: continual.real(tasks.muscle4, 'runs/muscle4', preset)),
  (pretrain.get_config, 'real', pretrain.real)])
@pytest.mark.parametrize('preset', presets.NAMES)
def test_a_preset_gives_its_values_and_is_gone_when_the_run_starts(get_config, variant, make, preset):
  config = get_config(variant)
  config.preset = preset
  plain = resolve(config)
  assert flat(plain) == flat(make(preset)) and 'preset' not in plain
  assert list(plain.get('tasks', ())) == list(make(preset).get('tasks', ()))
  pickle.dumps(plain)  # reader processes get it


@pytest.mark.parametrize('order', [('preset', 'trunk'), ('trunk', 'preset')])
def test_a_field_that_is_set_keeps_its_value_whatever_the_preset(order):
  config = finetune.get_config('real,knee')
  for field in order:
    config[field] = {'preset': 'small', 'trunk': 'resnet34'}[field]
  plain = resolve(config)
  assert (plain.trunk, plain.tasks.knee.augment.size) == ('resnet34', 64)


def test_an_unknown_preset_is_refused_with_the_choices():
  config = finetune.get_config('real,knee')
  config.preset = 'medium'
  with pytest.raises(ValueError, match="unknown preset 'medium': choose one of small, base, paper"):
    resolve(config)


def test_other_configs_are_left_alone():
  for config in (finetune.get_config('knee'), continual.get_config(), pretrain.get_config()):
    assert resolve(config) is config


@pytest.mark.parametrize('variant, names, steps', [
  ('pneumonia,lung', ['pneumonia', 'lung'], 40), ('lung,pneumonia', ['lung', 'pneumonia'], 40),
  ('smoke,knee,jaw', ['knee', 'jaw'], 2), ('real,jaw', ['jaw'], 0), ('mtpret7', list(tasks.mtpret7), 0),
  ('muscle4,knee', [*tasks.muscle4, 'knee'], 0)])
def test_stage_2_visits_the_tasks_that_the_command_line_lists(variant, names, steps):
  config = continual.get_config(variant)
  assert list(config.tasks) == names
  assert {own.steps for own in config.tasks.values()} == {steps}


@pytest.mark.parametrize('variant, complaint', [
  ('pneumonia,lungs', "unknown task 'lungs': choose one of pneumonia, .*own"), ('lung,smoke', "unknown task 'smoke'"),
  *((variant, 'choose one of .*, or a list of tasks, such as .*tuberculosis')
    for variant in ('', 'real', 'real,', 'mtpret8'))])
def test_an_unknown_list_of_tasks_is_refused_with_the_names(variant, complaint):
  with pytest.raises(ValueError, match=complaint):
    continual.get_config(variant)
