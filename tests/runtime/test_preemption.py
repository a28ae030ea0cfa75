"""A run that is asked to stop: where it stops, what it leaves, what it says, and that a second one is refused."""

import fcntl
import json
import signal

import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import preemption, workdir_lock
from tests.support.interrupted import listen


@pytest.fixture
def listening():
  with listen():
    yield


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_where_nothing_has_to_be_saved_a_signal_stops_at_once(listening, number):
  with pytest.raises(preemption.Stopped, match=number.name):
    signal.raise_signal(number)


def test_where_steps_are_taken_a_signal_waits_for_the_loop(listening, capsys):
  with preemption.defer_signals():
    assert not preemption.should_stop(7)
    signal.raise_signal(signal.SIGTERM)
    assert preemption.should_stop(8)
    with pytest.raises(preemption.Stopped), preemption.interruptible():
      pytest.fail('an evaluation was begun')
    assert preemption.SignalState.deferred
  assert capsys.readouterr().err.count('\n') == 1
  assert preemption.describe_stop(8, 20) == 'stopped by SIGTERM at step 8 of 20, which is saved'


def test_an_evaluation_is_left_at_once_and_the_loop_defers_again(listening):
  with preemption.defer_signals():
    with pytest.raises(preemption.Stopped), preemption.interruptible():
      signal.raise_signal(signal.SIGINT)
      pytest.fail('the evaluation went on')
    assert preemption.SignalState.deferred


def test_a_second_run_in_the_same_folder_is_refused_and_told_who_is_there(tmp_path):
  with workdir_lock.lock(tmp_path):
    holder = json.loads((tmp_path / workdir_lock.FILE).read_text())
    refused = pytest.raises(ConfigError, match=rf'in use by process {holder["pid"]} on .*--config.workdir')
    with refused, workdir_lock.lock(tmp_path):
      pytest.fail('two runs in one folder')
  with workdir_lock.lock(tmp_path):  # what the first left behind does not count
    pass


def test_where_files_cannot_be_locked_that_is_told_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
  def refuse(*args):
    raise OSError(37, 'No locks available')
  monkeypatch.setattr(fcntl, 'flock', refuse)
  with workdir_lock.lock(tmp_path):
    assert 'No locks available' in caplog.text
