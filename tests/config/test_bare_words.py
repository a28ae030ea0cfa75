"""Words in a tuple need no quotes on the command line."""

import pytest
from ml_collections import ConfigDict

from mtpret_jax.config import bare_words

CONFIG = ConfigDict({'tasks': ('knee',), 'crop': (0.5, 1.0), 'workdir': 'runs', 'task': {'findings': ()}})


@pytest.mark.parametrize('flag, quoted', [
  ('--config.tasks=lung,knee', "('lung', 'knee')"),
  ('--config.tasks=(lung, knee)', "('lung', 'knee')"),
  ('--config.tasks=scratch,muscle--', "('scratch', 'muscle--')"),
  ('--config.tasks=lung,', "('lung',)"),
  ('--config.tasks=(lung)', "('lung',)"),
  ('--config.task.findings=pleural effusion,edema', "('pleural effusion', 'edema')"),
  ('--config.task.findings=mass & nodule,edema/effusion', "('mass & nodule', 'edema/effusion')")])
def test_words_become_a_tuple(flag, quoted):
  field, _, _ = flag.partition('=')
  assert bare_words.quote_flag(flag, CONFIG) == f'{field}={quoted}'


@pytest.mark.parametrize('flag', [
  '--config=a,b', '--config.workdir=a,b', '--config.absent=a,b', "--config.tasks=('a','b')", '--config.tasks=("a",)',
  '--config.tasks=lung',
  '--config.crop=0.5,1', '--config.crop=(0.6 1.0)', '--config.crop=1', '--config.tasks=', '--config.tasks=()',
  "--config.task.findings=('opacity, left',)"])
def test_all_else_is_left_as_it_is(flag):
  assert bare_words.quote_flag(flag, CONFIG) == flag


@pytest.mark.parametrize('argv, quoted', [
  (['--config.inits', 'scratch,md_moco', '--dry_run'], ["--config.inits=('scratch', 'md_moco')", '--dry_run']),
  (['--config.inits=a,b', '--config.keep_checkpoints', '--dry_run'],
   ["--config.inits=('a', 'b')", '--config.keep_checkpoints', '--dry_run'])])
def test_a_value_may_follow_its_flag(argv, quoted):
  config = '--config=configs/table.py:smoke'
  assert bare_words.quote_words(['main', config, *argv]) == ['main', config, *quoted]


def test_the_type_of_the_field_comes_from_the_config_file():
  argv = ['main', '--config=configs/table.py:smoke', '--config.workdir=a,b', '--config.inits=scratch,md_moco']
  assert bare_words.quote_words(argv) == [*argv[:3], "--config.inits=('scratch', 'md_moco')"]
