"""A task is called external only where pretraining cannot have seen its images."""

import json

import pytest

from configs.finetune import get_config
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import prepare_data
from mtpret_jax.runtime.initial_weights import list_pretraining_datasets


def write_run(folder, datasets, init='scratch', init_from=''):
  folder.mkdir()
  config = {'objective': 'moco', 'init': init, 'init_from': str(init_from), 'data': {'datasets': datasets}}
  (folder / 'config.json').write_text(json.dumps({'config': config}))
  return folder


@pytest.fixture
def second_run(tmp_path):
  """A trunk that saw NIH's archive in its first run and bones in its second."""
  first = write_run(tmp_path / 'first', ['nih_chest_xray', 'mura'])
  return write_run(tmp_path / 'second', ['mura', 'rsna_bone_age'], 'md_moco', first)


def test_the_lineage_reaches_back_over_all_runs(second_run):
  config = {'init': 'mtpret', 'init_from': str(second_run)}
  assert list_pretraining_datasets(config) == ['nih_chest_xray', 'mura', 'rsna_bone_age']
  assert list_pretraining_datasets({'init': 'scratch', 'init_from': ''}) == []


def test_a_task_whose_images_an_earlier_run_saw_is_not_external(second_run):
  config = get_config('covid')
  config.update(init='mtpret', init_from=str(second_run))
  with pytest.raises(ConfigError, match='covid19_radiography is not external after pretraining on nih_chest_xray.*'
                                        '--config.tasks.covid.external=False'):
    prepare_data.check_external(config, list_pretraining_datasets(config))
  config.tasks.covid.external = False
  prepare_data.check_external(config, list_pretraining_datasets(config))


def test_a_task_that_shares_nothing_is_external(second_run):
  config = get_config('findings')
  prepare_data.check_external(config, ['nih_chest_xray', 'mura'])
