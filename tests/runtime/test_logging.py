"""What a run shows while it trains: compiling is announced, and counts neither in images/s nor in the time left."""

import json
import logging
import types

import pytest

from configs import continual, pretrain, tasks
from mtpret_jax.runtime import logging as run_logging
from mtpret_jax.runtime import progress
from mtpret_jax.runtime.logging import METRICS, RESULTS, batch_size, open_log

MEASURES = {'loss': 2.0, 'waited': 0.0}
COMPILING, STEP = 100.0, 2.0  # s


class Clock:
  def __init__(self):
    self.now = 1000.0

  def read(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(run_logging, 'time', types.SimpleNamespace(perf_counter=clock.read))
  monkeypatch.setattr(progress, 'time', types.SimpleNamespace(perf_counter=clock.read))
  return clock


def take_steps(run_log, clock, steps):
  for step in steps:
    clock.sleep(STEP)
    run_log.add(step, 'moco', MEASURES)


@pytest.fixture
def config():
  config = pretrain.get_config('smoke')
  config.log_every = 5
  return config


def test_compiling_is_announced(config, tmp_path, caplog):
  with open_log(tmp_path, 0, {'moco': 10}, config) as run_log, caplog.at_level(logging.INFO, 'mtpret_jax'):
    with run_log.compiling('moco'):
      assert 'compiling the step of task moco; this takes 10 s to several minutes' in caplog.text
    assert 'compiled the step of task moco in 0 s' in caplog.text


@pytest.mark.parametrize('before', [0, 2])
def test_compiling_counts_neither_in_the_rate_nor_in_the_time_left(before, config, clock, tmp_path):
  with open_log(tmp_path, 0, {'moco': 10}, config) as run_log:
    take_steps(run_log, clock, range(before))
    with run_log.compiling('moco'):
      clock.sleep(COMPILING)
    take_steps(run_log, clock, range(before, 5))
    assert run_log.progress.describe_left() == '10 s left'
    assert run_log.speed == f', {config.batch / STEP:.0f} images/s'
  line = json.loads((tmp_path / METRICS).read_text())
  assert line['step'] == 5 and line['images_per_second'] == config.batch / STEP


def test_a_slow_run_shows_a_decimal(config, clock, tmp_path):
  config.batch = 2
  with open_log(tmp_path, 0, {'moco': 10}, config) as run_log:
    take_steps(run_log, clock, range(5))
    assert run_log.speed == ', 1.0 images/s'


def test_a_resumed_run_drops_the_lines_of_steps_that_it_takes_again(config, clock, tmp_path):
  with open_log(tmp_path, 0, {'moco': 10}, config) as run_log:
    take_steps(run_log, clock, range(10))
  with open_log(tmp_path, 5, {'moco': 5}, config) as run_log:
    take_steps(run_log, clock, range(5, 10))
  assert [json.loads(line)['step'] for line in (tmp_path / METRICS).read_text().splitlines()] == [5, 10]


@pytest.mark.parametrize('start, kept', [(0, False), (5, False), (10, True)])
def test_results_of_an_earlier_run_do_not_stay_beside_the_config_of_one_that_still_trains(
    start, kept, config, tmp_path):
  assert 'operating_points.json' in RESULTS
  for name in RESULTS:
    (tmp_path / name).write_text('{}')
  with open_log(tmp_path, start, {'moco': 10 - start}, config):
    assert all((tmp_path / name).exists() == kept for name in RESULTS)


def test_a_picture_that_cannot_be_drawn_is_a_warning(config, tmp_path, caplog):
  def fail():
    raise ValueError('no formula')
  with open_log(tmp_path, 0, {'moco': 1}, config) as run_log:
    run_log.add_picture('views/own', fail, 0)
  assert 'the picture views/own is missing, because drawing it failed: ValueError: no formula' in caplog.text


def test_a_joint_step_has_the_images_of_all_tasks():
  config = continual.get_config()
  config.tasks = tasks.embedded(['lung', 'knee'], steps=1)
  assert batch_size(config, 'joint') == 2 * batch_size(config, 'knee') == 2 * config.tasks.knee.batch
