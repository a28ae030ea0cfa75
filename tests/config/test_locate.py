"""`--config=configs/...` is a file of the current folder, or else the bundled one."""

import pytest

from mtpret_jax.config.locate import use_bundled_configs
from tests.support.paths import ROOT

FILE = 'configs/pretrain.py'


@pytest.mark.parametrize('argv, expected', [
  ([f'--config={FILE}'], [f'--config={ROOT}/{FILE}']),
  ([f'--config={FILE}:smoke', '--config.batch=64'], [f'--config={ROOT}/{FILE}:smoke', '--config.batch=64']),
  (['--config', f'{FILE}:finetune,lung'], ['--config', f'{ROOT}/{FILE}:finetune,lung']),
  (['--config=configs/nope.py'], ['--config=configs/nope.py']),
  (['--config=pretrain.py'], ['--config=pretrain.py']),
  (['--config='], ['--config=']),
  (['main.py', FILE], ['main.py', FILE])])
def test_a_folder_without_configs_has_the_bundled_ones(argv, expected, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert use_bundled_configs(argv) == expected


def test_a_file_in_the_current_folder_comes_first(tmp_path, monkeypatch):
  (tmp_path / 'configs').mkdir()
  (tmp_path / FILE).write_text('')
  monkeypatch.chdir(tmp_path)
  assert use_bundled_configs([f'--config={FILE}:smoke']) == [f'--config={FILE}:smoke']
