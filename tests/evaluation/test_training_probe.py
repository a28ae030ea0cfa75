"""The probe of stage 1 while it trains: its lines in the log and in probes.jsonl. The runs of tests/test_train.py show
that it does not change the training."""

import json
import logging
import types

import pytest
from ml_collections import ConfigDict

from configs import pretrain
from mtpret_jax.evaluation import training_probe
from mtpret_jax.evaluation.training_probe import FILE, list_probe_steps, make_validate

MAKE_SCORE = training_probe.make_score
STATE = types.SimpleNamespace(params={'trunk': {}}, carry={'stats': {'trunk': {}}})


@pytest.fixture(autouse=True)
def scores(monkeypatch):
  """Linear scores of the probes to come, in place of images and a trunk."""
  coming = iter([0.5, 0.625, 0.75, 0.875])

  def make_score(config):
    return lambda trunk: {'chest': {'metric': 'AUROC', 'knn': 0.25, 'linear': next(coming)}}
  monkeypatch.setattr(training_probe, 'make_score', make_score)
  monkeypatch.setattr(training_probe, 'explain_key_age', lambda lines, config: f'{len(lines)} lines, too old')


def read_lines(workdir):
  return [(line['step'], line['scores']['chest']['linear']) for line in training_probe.read(workdir)]


@pytest.mark.parametrize('steps, every, expected', [
  (8, 4, {0, 4, 8}), (7, 4, {0, 4, 7}), (2, 5, {0, 2}), (8, 0, set())])
def test_a_run_is_probed_at_its_start_every_so_many_steps_and_at_its_end(steps, every, expected):
  assert list_probe_steps(steps, every) == expected


def test_the_log_compares_each_probe_with_the_first_and_warns_once(tmp_path, caplog):
  validate = make_validate(None, tmp_path, 0)
  with caplog.at_level(logging.INFO):
    assert [validate(STATE, step) for step in (0, 4, 8)] == ['', '', ''], 'stage 1 never ends early'
  assert [record.message for record in caplog.records if record.name == training_probe.log.name] == [
    'probe at step 0: chest linear AUROC 0.500, kNN 0.250', '0 lines, too old',
    'probe at step 4: chest linear AUROC 0.500 -> 0.625, kNN 0.250 -> 0.250',
    'probe at step 8: chest linear AUROC 0.500 -> 0.750, kNN 0.250 -> 0.250']
  assert list((tmp_path / 'tensorboard').glob('events*'))


@pytest.mark.parametrize('during, images, read, differ', [
  (500, 2000, 500, True), (500, 2000, 300, False), (2000, 500, 800, True), (500, 500, 500, False)])
def test_the_log_says_where_the_probes_at_the_end_use_other_images(during, images, read, differ, monkeypatch, caplog):
  datasets = {'chest': {'train': {'image': [0] * read}, 'validation': {'image': [0] * 10}}}
  monkeypatch.setattr(training_probe.probe, 'read_datasets', lambda *args, **fields: datasets)
  monkeypatch.setattr(training_probe.probe, 'list_scored', lambda datasets: [('chest', 'present', 'AUROC')])
  monkeypatch.setattr(training_probe.probe, 'make_embedder', lambda config: None)
  caplog.set_level(logging.INFO)
  MAKE_SCORE(ConfigDict(dict(probe=dict(during=during, images=images))))
  line = f'at most {during} images of each split, and those at the end at most {images}, so their scores differ'
  assert (line in caplog.text) == differ


def test_all_probes_of_a_smoke_run_use_the_same_images():
  config = pretrain.get_config('smoke').probe
  assert config.during == config.images


def test_a_resumed_run_writes_no_step_twice(tmp_path):
  validate = make_validate(None, tmp_path, 0)
  for step in (0, 4, 8):
    validate(STATE, step)
  again = make_validate(None, tmp_path, 4)  # the checkpoint of step 8 is damaged
  again(STATE, 4)
  assert read_lines(tmp_path) == [(0, 0.5), (4, 0.625), (8, 0.75)], 'step 4 has a line already'
  again(STATE, 8)
  assert read_lines(tmp_path) == [(0, 0.5), (4, 0.625), (8, 0.875)]
  make_validate(None, tmp_path, 0)
  assert read_lines(tmp_path) == [], 'a run that starts again'


def test_damaged_lines_are_left_out(tmp_path, caplog):
  good = {'step': 0, 'scores': {'chest': {'metric': 'AUROC', 'knn': 0.5, 'linear': 0.5}}}
  bad = [{'step': 4}, {'step': 8, 'scores': {'chest': 1}}, {'step': 9, 'scores': {'chest': {'metric': 'AUROC'}}}]
  (tmp_path / FILE).write_text(''.join(json.dumps(line) + '\n' for line in [good, *bad]))
  assert training_probe.read(tmp_path) == [good]
  assert '3 damaged lines' in caplog.text
