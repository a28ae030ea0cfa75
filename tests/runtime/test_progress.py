"""How far a run is: the time left by task, lines where there is no terminal, a bar and ticks where there is one."""

import contextlib
import io
import logging
import time
import types

import pytest

from mtpret_jax.runtime import progress
from mtpret_jax.runtime.progress import Progress, describe_seconds, open_progress


class Clock:
  now = 1000.0

  def read(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(progress, 'time', types.SimpleNamespace(perf_counter=clock.read))
  return clock


class Terminal(io.StringIO):
  def isatty(self):
    return True


def take(shown, clock, task, seconds, count=1):
  for _ in range(count):
    clock.now += seconds
    shown.step(task, f'{task} loss 1.000')


def test_the_time_left_counts_the_steps_of_each_task_at_its_own_speed(clock):
  shown = Progress('continual', 0, {'lung': 10, 'knee': 5})
  assert shown.describe_left() == ''
  take(shown, clock, 'lung', 50)  # the first step of a task does not count
  take(shown, clock, 'lung', 4, 2)
  assert shown.estimate_left() == 7 * 4 + 5 * 4, 'a task that was not measured counts as the others'
  take(shown, clock, 'knee', 50)
  take(shown, clock, 'knee', 1)
  assert shown.estimate_left() == 7 * 4 + 3 * 1
  take(shown, clock, 'lung', 4, 7)
  take(shown, clock, 'knee', 1, 3)
  assert shown.describe_left() == ''


def test_a_validation_counts_from_the_second_on_because_the_first_compiles(clock):
  shown = Progress('finetune', 0, {'lung': 10}, validations=4)
  take(shown, clock, 'lung', 2, 2)
  for seconds, left in (60, 16), (5, 16 + 2 * 5):
    with shown.pause('validation'):
      clock.now += seconds
    assert shown.estimate_left() == left


def test_without_a_terminal_a_line_of_the_log_comes_every_half_minute(clock, caplog):
  with caplog.at_level(logging.INFO, 'mtpret_jax'), open_progress('finetune', 100, {'lung': 40}) as shown:
    take(shown, clock, 'lung', 2, 39)
    assert caplog.messages == ['finetune: step 115 of 140, lung loss 1.000, 50 s left',
                               'finetune: step 130 of 140, lung loss 1.000, 20 s left']
    take(shown, clock, 'lung', 2)
    assert caplog.messages[-1] == 'finetune: step 140 of 140, lung loss 1.000'


def test_on_a_terminal_one_line_shows_the_steps_and_the_time_left(clock):
  terminal = Terminal()
  with contextlib.redirect_stderr(terminal), open_progress('finetune', 0, {'lung': 40}) as shown:
    take(shown, clock, 'lung', 2, 10)
    assert 'finetune  25% |' in str(shown.bar)
    assert str(shown.bar).endswith('| 10/40, lung loss 1.000, 60 s left')
  assert terminal.getvalue().count('\n') == 1


def test_compiling_ticks_while_the_main_thread_is_busy(monkeypatch):
  monkeypatch.setattr(progress, 'TICK', 0.01)
  terminal = Terminal()
  with contextlib.redirect_stderr(terminal), open_progress('finetune', 0, {'lung': 40}) as shown:
    with shown.pause('compiling the step of task lung'):
      time.sleep(0.3)
  assert '0/40, compiling the step of task lung ... 0 s' in terminal.getvalue()


def test_where_no_run_has_started_the_log_ticks(monkeypatch, caplog):
  monkeypatch.setattr(progress, 'EVERY', 0.01)
  with caplog.at_level(logging.INFO, 'mtpret_jax'), progress.announce('compiling'):
    time.sleep(0.3)
  assert caplog.messages[0] == 'compiling ... 0 s'


@pytest.mark.parametrize('seconds, text', [
  (34.4, '34 s'), (99, '99 s'), (120, '2 min'), (150, '2 min 30 s'), (770, '12 min'), (3600, '60 min'),
  (3 * 3600 + 1200, '3 h 20 min'), (52 * 3600, '2 days 4 h')])
def test_seconds_in_words(seconds, text):
  assert describe_seconds(seconds) == text
