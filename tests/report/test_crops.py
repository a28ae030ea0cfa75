"""The sentence on crops of stage 1 that are enlarged."""

import logging
import types

import pytest

from configs import pretrain
from mtpret_jax import stages
from mtpret_jax.report.crops import describe_crops
from tests.support.changed import change


def test_enlarged_crops_are_said_in_words():
  """256 px times the root of 0.2."""
  config = pretrain.get_config('mtpret11')
  words = describe_crops(config)
  assert words.startswith('the smallest crops have 114 px and are enlarged to 224 px')
  assert 'data.stored_size=512 and data.size=501 (or more)' in words
  assert 'data.stored_size=original' in describe_crops(change(config, **{'augment.crop_area': (0.1, 1.0)}))


def test_crops_that_are_shrunk_are_not_mentioned():
  config = change(pretrain.get_config('mtpret11'), **{'data.size': 512, 'data.stored_size': '512'})
  assert describe_crops(config) == ''
  assert describe_crops(pretrain.get_config()) == ''


@pytest.mark.parametrize('variant, lines', [('embedded', 0), ('mtpret11', 1)])
def test_stage_1_logs_it_once_when_it_starts(variant, lines, monkeypatch, caplog):
  config = pretrain.get_config(variant)
  run = types.SimpleNamespace(sources=[()] * len(config.data.datasets))
  for name, result in (('make_run', run), ('train', None), ('describe_schedule', [])):
    monkeypatch.setattr(stages, name, lambda *args, result=result: result)
  with caplog.at_level(logging.INFO):
    stages.train_stage(config, 'nowhere')
  assert sum('enlarged' in record.message for record in caplog.records) == lines
