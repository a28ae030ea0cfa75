"""A folder that a library would take for another one is refused, with what it has; every other folder works."""

import os
import string

import jax.numpy as jnp
import numpy as np
import pytest

from configs import pretrain
from configs.evaluate import get_config as get_evaluation
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.config.paths import check_folder, check_workdir, find_read_defect, find_write_defect
from mtpret_jax.config.validate import check_config
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import test_scores
from mtpret_jax.runtime import checkpoint
from mtpret_jax.runtime.prepare_data import choose_datasets
from tests.support.archives import write_clinic
from tfds_builders import build
from tfds_builders.common import paths

# A folder name of every printable ASCII character that is allowed, and of others; [ is allowed where no ] follows.
ODD = ''.join(sorted(set(string.punctuation) - set('/\\*?[]'))) + '][ äß\u0308\u00a0中😀👨\u200d👩 .'


@pytest.mark.parametrize('name, part', [
  ('run[1]', r'\['), ('[!a]', r'\['), ('[]a]', r'\['), ('a*', r'\*'), ('a?b', r'\?'), ('**', r'\*\*'), ('a\\b', r'\\'),
  ('gs:', 'gs:'), ('logs:', 'gs:')])
def test_a_folder_that_orbax_cannot_write_to_is_refused_and_what_it_has_is_named(name, part, tmp_path):
  with pytest.raises(ConfigError, match=f"^workdir='.* has '{part}', .* with --config.workdir=<folder>$"):
    check_workdir(tmp_path / name / 'run')
  assert not list(tmp_path.iterdir()), 'nothing is created'


def test_every_other_name_is_allowed(tmp_path):
  for name in (*string.printable[:-5], ODD, '[!]', '[]', '-a', '~', '%41', 'a@8', 'gs', 's3:', 'http:', 'x' * 255):
    folder = str(tmp_path / f'{name}' / 'run')
    assert name in '/\\*?' or not find_write_defect(folder), name
    assert not paths.find_archives_defect(folder) and not paths.find_data_defect(folder)


def test_a_checkpoint_and_a_dataset_in_an_odd_folder_are_read_back(tmp_path):
  folder, state = tmp_path / ODD, {'step': jnp.int32(3), 'weights': jnp.arange(50.0)}
  check_workdir(folder / 'run')
  with checkpoint.open_checkpoints(folder / 'run', 1) as checkpoints:
    checkpoint.save(checkpoints, state, 3, {})
  np.testing.assert_array_equal(checkpoint.read_state(folder / 'run')[0]['weights'], state['weights'])
  write_clinic(folder / 'archives', patients=6)
  build.prepare('clinic', folder / 'archives', folder / 'data')
  source = open_source('clinic', folder / 'data', '256', 'train')
  assert len(source) and source.records[0]['image']


def test_a_run_in_a_folder_with_brackets_can_be_read_but_not_one_with_a_backslash():
  assert not find_read_defect('/a/run[1]') and not find_read_defect('/a/*/?')
  config = get_evaluation()
  config.run = '/a\\b/run'
  with pytest.raises(ConfigError, match=r"^run='/a.*b/run' has '\\', and TensorStore reads it as /: .*--config.run="):
    test_scores.evaluate_run(config)
  config = pretrain.get_config('smoke')
  config.update(init='imagenet', init_from='/logs:/run')
  with pytest.raises(ConfigError, match="^init_from='/logs:/run' has 'gs:', and Orbax"):
    check_config(config, devices=1, processes=1)


@pytest.mark.parametrize('bucket', ('gs', 's3', 'az', 'hf'))
def test_a_folder_that_etils_takes_for_a_bucket_is_refused(bucket):
  config = pretrain.get_config('smoke')
  config.data.archives = f'/{bucket}/archives'
  with pytest.raises(ConfigError, match=f"^data.archives='/{bucket}/archives' is below /{bucket}, which TFDS "):
    choose_datasets(config)
  with pytest.raises(ConfigError, match=f'^data.dir=.*{bucket}://: use another folder'):
    check_folder('data.dir', f'/{bucket}/prepared')
  assert not paths.find_data_defect(f'/data/{bucket}/prepared')


def test_a_part_of_the_current_folder_is_named_as_that(tmp_path, monkeypatch):
  (tmp_path / 'a[1]').mkdir()
  monkeypatch.chdir(tmp_path / 'a[1]')
  with pytest.raises(ConfigError, match=r"^workdir='run' is in '.*a\[1\]', which has '\[', .*start the command in "):
    check_workdir('run')
  check_workdir(tmp_path / 'run')


def test_two_dots_after_a_symbolic_link_are_refused_with_the_folder_that_is_meant(tmp_path):
  (tmp_path / 'real/deep').mkdir(parents=True)
  (tmp_path / 'link').symlink_to(tmp_path / 'real/deep')
  with pytest.raises(ConfigError, match=f'has .* after a symbolic link, .* write it as {tmp_path}/real/run, with'):
    check_workdir(f'{tmp_path}/link/../run')
  for allowed in ('link/run', 'real/../run/', 'real//run/.', 'link/x/../run'):
    check_workdir(f'{tmp_path}/{allowed}')


@pytest.mark.parametrize('field, value, defect', [
  ('workdir', 'gs://bucket/run', 'is a URL'), ('data.dir', 's3://x', 'is a URL'),
  ('data.archives', 'file:///x', 'is a URL'),
  ('workdir', 'run\n1', "has the character '\\n'"), ('data.dir', 'a\udcff', "has the character '\\udcff'")])
def test_a_url_and_a_character_that_cannot_be_printed_are_named(field, value, defect):
  config = pretrain.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ConfigError) as error:
    check_config(config, devices=1, processes=1)
  assert str(error.value).startswith(f'{field}={value!r} {defect}') and f'--config.{field}=<path>' in str(error.value)


def test_a_folder_of_prepared_data_must_be_utf_8_and_archives_need_not():
  latin = os.fsdecode(b'/data/R\xf6ntgen')
  assert paths.find_data_defect(latin) == r"has the byte b'\xf6', which is not UTF-8: give a path without it"
  assert not paths.find_archives_defect(latin)
  with pytest.raises(ValueError, match='^--data_dir=.*is not UTF-8'):
    paths.check('--data_dir', latin, paths.find_data_defect)
