"""A signal stops a run where nothing is lost; a second run in the same workdir is refused."""

import contextlib
import fcntl
import functools
import io
import json
import logging
import os
import signal
import sys
import time
import weakref

import pytest

from mtpret_jax.runtime import preemption, workdir_lock
from tests.support.interrupted import listen
from tfds_builders.common import locks


@pytest.fixture
def listening():
  with listen():
    yield


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_a_signal_stops_at_once_where_there_is_nothing_to_save(listening, number):
  with pytest.raises(preemption.Stopped, match=number.name):
    signal.raise_signal(number)


def test_a_signal_waits_for_the_loop_while_steps_are_taken(listening, capfd):
  with preemption.defer_signals():
    assert not preemption.should_stop(7)
    signal.raise_signal(signal.SIGTERM)
    assert preemption.should_stop(8)
    with pytest.raises(preemption.Stopped), preemption.interruptible():
      pytest.fail('an evaluation was started')
    assert preemption.SignalState.deferred
  assert capfd.readouterr().err.count('\n') == 1
  assert preemption.describe_stop(8, 20) == 'stopped by SIGTERM at step 8 of 20, which is saved'


class SignalledStream(io.RawIOBase):
  """A signal arrives during each write."""

  def writable(self):
    return True

  def write(self, data):
    signal.raise_signal(signal.SIGTERM)
    return len(data)


def test_a_signal_during_a_write_to_stderr_is_announced(listening, monkeypatch, capfd):
  monkeypatch.setattr(sys, 'stderr', io.TextIOWrapper(io.BufferedWriter(SignalledStream())))
  with preemption.defer_signals():
    print('of the progress bar', file=sys.stderr, flush=True)
  assert 'SIGTERM: finishing and saving the current step' in capfd.readouterr().err


def test_a_signal_stops_an_evaluation_at_once_and_the_loop_defers_again(listening):
  with preemption.defer_signals():
    with pytest.raises(preemption.Stopped), preemption.interruptible():
      signal.raise_signal(signal.SIGINT)
      pytest.fail('the evaluation continued')
    assert preemption.SignalState.deferred


class Referent:
  pass


def signal_where_python_ignores_exceptions():
  """Sends SIGTERM while the callback of a weak reference runs."""
  referent = Referent()
  reference = weakref.ref(referent, lambda _: signal.raise_signal(signal.SIGTERM))
  del referent
  assert reference() is None


def test_a_signal_where_python_ignores_exceptions_stops_a_moment_later_without_a_traceback(listening, capfd):
  with pytest.raises(preemption.Stopped, match='SIGTERM'):
    signal_where_python_ignores_exceptions()
    time.sleep(10 * preemption.RETRY)
    pytest.fail('the signal was lost')
  shown = capfd.readouterr().err
  assert shown.count('\n') == 1 and 'Traceback' not in shown and 'ignored' not in shown


def test_such_a_signal_in_a_compilation_stops_the_loop_at_its_next_step(listening, capfd):
  with preemption.defer_signals():
    with preemption.abandonable():  # ends before Stopped is raised again
      signal_where_python_ignores_exceptions()
    time.sleep(2 * preemption.RETRY)  # the second time, there is something to save
    assert preemption.should_stop(8)
  assert 'Traceback' not in capfd.readouterr().err


def test_a_repeated_stop_does_not_disturb_a_run_that_has_said_that_it_stopped(listening):
  preemption.SignalState.announced = True
  signal.raise_signal(signal.SIGALRM)


def test_other_exceptions_that_python_ignores_are_still_shown(listening, monkeypatch):
  shown = []
  monkeypatch.setattr(sys, 'unraisablehook', functools.partial(preemption.handle_ignored, shown.append))
  referent = Referent()
  reference = weakref.ref(referent, lambda _: 1 / 0)
  del referent
  assert reference() is None and [ignored.exc_type for ignored in shown] == [ZeroDivisionError]


def test_a_second_run_in_the_same_workdir_is_refused_with_the_process_that_holds_it(tmp_path):
  with workdir_lock.lock(tmp_path):
    holder = json.loads((tmp_path / workdir_lock.FILE).read_text())
    refused = pytest.raises(workdir_lock.InUse, match=rf'in use by process {holder["pid"]} on .*--config.workdir')
    with refused, workdir_lock.lock(tmp_path):
      pytest.fail('two runs in one folder')
  with workdir_lock.lock(tmp_path):  # the file that the first left behind does not matter
    pass


def test_a_run_that_waits_for_the_lock_says_so_once_and_gets_it_when_the_other_ends(tmp_path, monkeypatch, caplog):
  caplog.set_level(logging.INFO, 'mtpret_jax')
  other = contextlib.ExitStack()
  other.enter_context(workdir_lock.lock(tmp_path))
  waits = []

  def sleep(seconds):
    waits.append(seconds)
    if len(waits) == 3:
      other.close()
  monkeypatch.setattr(locks.time, 'sleep', sleep)
  with workdir_lock.lock(tmp_path, wait=True):
    assert len(waits) == 3 and caplog.text.count(f'waiting for process {os.getpid()}') == 1


def test_a_file_system_without_locks_gives_a_warning_and_the_run_continues(tmp_path, monkeypatch, caplog):
  def refuse(*args):
    raise OSError(37, 'No locks available')
  monkeypatch.setattr(fcntl, 'flock', refuse)
  with workdir_lock.lock(tmp_path):
    assert 'No locks available' in caplog.text
