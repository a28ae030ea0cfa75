"""A mistake in a config is refused in one line that states value, rule and remedy."""

import os
import re

import pytest

from configs import continual, finetune, mtpret, pretrain
from configs.pretrain import VARIANTS, get_config
from mtpret_jax.config import paths, renamed, validate
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.paths import check_workdir
from mtpret_jax.config.validate import check_config
from mtpret_jax.evaluation import training_probe, validation
from mtpret_jax.runtime import logging, loss_guard, workdir_lock
from mtpret_jax.runtime.initial_weights import read_initial_weights
from mtpret_jax.runtime.prepare_data import check_archives


def refuse(devices=1, processes=1, **changes):
  config = get_config()
  config.moco.negatives = 'queue'  # only with a queue must its length fit the batch
  config.update_from_flattened_dict(changes)
  with pytest.raises(ConfigError) as error:
    check_config(config, devices=devices, processes=processes)
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('variant', ['embedded', 'smoke', 'muscle9', 'mtpret11'])
def test_every_variant_passes_its_own_check_on_one_device_and_on_a_host_of_eight(variant):
  config = get_config(variant)
  check_config(config, devices=1, processes=1)
  if variant.endswith(('9', '11')):
    check_config(config, devices=8, processes=1)


def test_an_unknown_variant_lists_the_choices():
  with pytest.raises(ValueError, match='nope.*choose one of ' + ', '.join(VARIANTS)):
    get_config('nope')


def test_a_queue_that_cannot_hold_a_batch_gets_a_length_that_fits():
  assert refuse(**{'moco.queue': 48}) == (
    'moco.queue=48 cannot hold the keys of batch=64: try --config.moco.queue=64')


def test_a_queue_need_not_be_a_multiple_of_the_batch():
  config = get_config()
  config.moco.update(negatives='queue', queue=1000)
  check_config(config, devices=1, processes=1)


def test_a_queue_whose_places_int32_cannot_count_is_refused():
  assert refuse(batch=2**16, **{'moco.queue': 2**24 - 1, 'moco.negatives': 'queue'}) == (
    'moco.queue=16777215 and batch=65536 share too few divisors: try --config.moco.queue=16711680')


def test_without_a_queue_its_length_does_not_matter():
  config = get_config()
  config.moco.update(negatives='batch', queue=1000)
  check_config(config, devices=1, processes=1)
  message = refuse(devices=4, batch=320, **{'moco.negatives': 'batch', 'moco.queue': 1000, 'moco.group': 24})
  assert 'queue' not in message and '--config.batch=384' in message


def test_a_batch_that_groups_and_devices_do_not_divide_gets_one_that_fits():
  message = refuse(devices=4, batch=40)
  assert 'batch of 40' in message and '4 x 16 = 64' in message and '--config.batch=64' in message


def test_the_group_of_a_task_whose_name_contains_batch_is_named_in_full():
  config = finetune.get_config('smoke,lung')
  config.tasks = {'batchy': config.tasks.lung}
  config.tasks.batchy.batch = config.tasks.batchy.group + 1
  with pytest.raises(ConfigError, match=r'\.tasks\.batchy\.batch=\d+ or change --config\.tasks\.batchy\.group$'):
    check_config(config, devices=1, processes=1)


def test_keys_that_stay_with_their_queries_are_refused():
  assert 'give the positive away' in refuse(**{'moco.shuffle_groups': 1})


def test_a_block_of_keys_lies_in_one_process():
  assert '--config.moco.shuffle_groups=2' in refuse(devices=2, processes=2)


@pytest.mark.parametrize('field, value', [
  ('trunk', 'vgg'), ('dtype', 'float16'), ('moco.negatives', 'some'), ('data.weights', 'some'),
  ('data.weights', '1,2'), ('data.weights', '1,1,1,1,0'), ('data.stored_size', '100')])
def test_a_wrong_choice_lists_the_choices(field, value):
  message = refuse(**{field: value})
  assert repr(value) in message and (': choose one of ' in message or ': use ' in message)


def test_a_dataset_that_is_used_whole_must_be_one_of_the_run():
  message = refuse(**{'data.whole': ('mura', 'knee_oa')})
  assert "data.whole names 'knee_oa', which is not among the data.datasets of this run" in message
  assert message.endswith('try --config.data.whole="(\'mura\',)"')


def test_an_unknown_dataset_lists_the_datasets():
  config = get_config()
  config.data.datasets = ('murra',)
  with pytest.raises(ConfigError, match="unknown dataset 'murra': choose one of nih_chest_xray, "):
    check_archives([config])


@pytest.mark.parametrize('name, said', [
  ('none.safetensors', 'does not exist'), ('weights.pth', 'is not what torch.save writes')])
def test_weights_that_cannot_be_used_are_refused_with_a_reason(name, said, tmp_path):
  config = get_config()
  (tmp_path / 'weights.pth').touch()
  config.update(init='imagenet', init_from=str(tmp_path / name))
  with pytest.raises(ConfigError, match=f'(?s)init_from=.*{said}'):
    read_initial_weights(config)


@pytest.mark.parametrize('make', (os.mkfifo, os.mkdir, lambda path: os.symlink('nothing', path)))
@pytest.mark.parametrize('name', ('run.lock', 'metrics.jsonl'))
def test_something_else_in_place_of_a_file_in_a_workdir_is_refused(name, make, tmp_path):
  make(tmp_path / name)
  with pytest.raises(ConfigError, match=f'{name} is not a file: remove it'):
    check_workdir(tmp_path)


def test_the_files_that_are_checked_are_all_that_a_run_writes():
  assert set(paths.FILES) == {workdir_lock.FILE, logging.METRICS, validation.FILE, training_probe.FILE,
                                 loss_guard.FILE}


@pytest.mark.parametrize('name', ('x' * 300, 'a/' * 3000))
def test_a_workdir_with_an_impossible_name_is_refused(name, tmp_path):
  with pytest.raises(ConfigError, match='cannot write to workdir|use a path of at most 3880'):
    check_workdir(tmp_path / name)


@pytest.mark.parametrize('workdir', ('file', 'file/run', 'link', 'link/run'))
def test_an_unwritable_workdir_is_noticed_first(workdir, tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'link').symlink_to('nothing')
  with pytest.raises(ConfigError, match='cannot write to workdir .*--config.workdir'):
    check_workdir(tmp_path / workdir)


def test_the_check_of_a_workdir_creates_nothing(tmp_path):
  check_workdir(tmp_path / 'runs' / 'one')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('variants', [('embedded', 'embedded', 'pneumonia'), ('smoke', 'smoke', 'smoke,lung')])
def test_stages_that_share_a_folder_ask_for_the_same_phantoms(variants):
  """Else the second stage would render them anew and find the prepared ones changed."""
  configs = [module.get_config(variant) for module, variant in zip((pretrain, continual, finetune), variants,
                                                                   strict=True)]
  assert len({config.data.dir for config in configs}) == 1
  assert all(config.data.phantoms == configs[0].data.phantoms for config in configs)


@pytest.mark.parametrize('field, value, said', [
  ('on_nonfinite', 'ignore', "unknown on_nonfinite 'ignore': choose one of skip, stop"),
  ('keep', 0, 'from 1 to 1000000: try --config.keep=1'),
  ('save_retries', -1, 'from 0 to 10')])
def test_the_options_for_bad_steps_and_failed_saves_are_checked(field, value, said):
  assert said in refuse(**{field: value})


@pytest.mark.parametrize('changes, message', [
  (dict(patience=3), 'patience=3 needs one task, .* this config has 4: try --config.patience=0'),
  ({'tasks.lung.min_steps': 9, 'tasks.lung.max_steps': 5}, 'tasks.lung.max_steps=5 is below tasks.lung.min_steps=9.*: '
   'try --config.tasks.lung.steps=5 --config.tasks.lung.max_steps=0 for exactly 5 steps, or '
   '--config.tasks.lung.min_steps=5'),
  ({'tasks.lung.among': 'mass'}, 'tasks.lung.among=.mass. applies to classification only'),
  ({'tasks.lung.steps': 0, 'tasks.lung.epochs': 0.0},
   'tasks.lung.steps=0 and tasks.lung.epochs=0 leave a visit without a length.*: try --config.tasks.lung.epochs=1.0'),
  ({'order': 'joint', 'tasks.lung.learning_rates': (0.1, 0.01)},
   r'tasks.lung.learning_rates=.0.1, 0.01. cannot be used with order=.joint.*try --config.tasks.lung.learning_rates='),
  ({'tasks.lung.learning_rates': (0.01, 0.1)}, 'it must be .* two numbers .*, the larger one first'),
  ({'optimiser.final_learning_rate': 0.1}, 'optimiser.final_learning_rate=0.1 exceeds optimiser.learning_rate=0.001.*: '
   'try --config.optimiser.final_learning_rate=0.001'),
  ({'tasks.lung.steps': 0, 'tasks.lung.min_steps': 10**7}, 'exceed 10000000.*try --config.tasks.lung.steps='),
  ({'validations': 0}, 'validations=0: it must be a whole number from 1')])
def test_schedules_that_cannot_be_are_refused(changes, message):
  config = continual.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(ConfigError, match=message):
    check_config(config, devices=1, processes=1)


def make_section(field, value):
  """{'a': {'b': value}} for the field 'a.b'."""
  for name in reversed(field.split('.')):
    value = {name: value}
  return value


@pytest.mark.parametrize('make, field, message', [
  (pretrain, 'optimiser.rate', 'optimiser.rate is now optimiser.learning_rate: rename it'),
  (pretrain, 'optimiser.warmup_steps', 'optimiser.warmup_steps is now optimiser.warmup, a share (0 to 1) of the run in '
   'stage 1, and of each visit later, instead of steps: rename it'),
  (mtpret, 'stages.lung.evaluate_every', 'stages.lung.evaluate_every is now stages.lung.validations, the number of '
   'validations in each round instead of the steps between them: rename it'),
  (pretrain, 'contrast', 'contrast is now moco: rename it'),
  (pretrain, 'on_bad', 'on_bad is now on_nonfinite: rename it'),
  (pretrain, 'spike_window', 'spike_window no longer exists: remove it'),
  (continual, 'memory.strength', 'memory.strength is now memory.l2_sp: rename it'),
  (continual, 'tasks.lung.head.rates', 'tasks.lung.head.rates is now tasks.lung.head.dilations: rename it'),
  (continual, 'tasks.lung.augment.box_left',
   'tasks.lung.augment.box_left is now tasks.lung.augment.min_visibility: rename it'),
  (mtpret, 'stages.pretrain.data.ahead', 'stages.pretrain.data.ahead is now stages.pretrain.data.prefetch: rename it'),
  (mtpret, 'stages.continual.tasks.tuberculosis.head.score',
   'stages.continual.tasks.tuberculosis.head.score is now stages.continual.tasks.tuberculosis.head.min_score: '
   'rename it')])
def test_a_field_of_an_earlier_version_is_refused_with_its_new_name(make, field, message):
  config = make.get_config()
  with config.unlocked():
    config.update(make_section(field, {} if field == 'contrast' else 1))
  with pytest.raises(ConfigError) as error:
    validate.check_objective(config)
  assert str(error.value) == message


def test_an_objective_of_an_earlier_version_is_refused_with_its_new_name():
  assert refuse(objective='contrast') == "objective='contrast' is now objective='moco': rename it"


@pytest.mark.parametrize('old, new', [(True, 'always'), (False, 'never'), ('True', 'always')])
def test_negatives_of_an_earlier_version_are_refused_with_the_choice_to_write(old, new):
  config = mtpret.get_config('smoke')
  with config.unlocked(), config.ignore_type():
    config.stages.continual.tasks.tuberculosis.negatives = old
  field = 'stages.continual.tasks.tuberculosis.negatives'
  with pytest.raises(ConfigError) as error:
    validate.check_objective(config)
  assert str(error.value) == f'{field}={old!r} is now {field}={new!r}: rename it'


@pytest.mark.parametrize('old, new', [('all', "moco.negatives='queue'"),
                                      ('same_source', "moco.negatives='queue' with {}moco.same_source=True")])
def test_negatives_of_an_earlier_stage_1_are_refused_with_the_fields_to_write(old, new):
  assert refuse(**{'moco.negatives': old}) == f'moco.negatives={old!r} is now {new.format("")}: rename it'
  config = mtpret.get_config('smoke')
  config.stages.pretrain.moco.negatives = old
  with pytest.raises(ConfigError) as error:
    validate.check_objective(config)
  assert str(error.value) == (f'stages.pretrain.moco.negatives={old!r} is now stages.pretrain.'
                              f'{new.format("stages.pretrain.")}: rename it')


def test_every_new_name_is_a_field():
  fields = {field for module in (pretrain, continual)
            for field, _ in renamed.walk_fields(module.get_config().to_dict())}
  for new in filter(None, renamed.RENAMED.values()):
    assert any(re.fullmatch(re.escape(new).replace(r'\*', '[^.]+'), field) for field in fields), new
