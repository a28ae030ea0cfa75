"""Two processes never prepare one dataset at the same time, and a killed one leaves nothing that looks complete."""

import fcntl
import threading

import pytest

from tests.support.archives import write_clinic
from tfds_builders import build
from tfds_builders.common import locks


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
  monkeypatch.setattr(locks, 'POLL', 0.01)


def test_a_second_process_waits_says_so_and_then_holds_the_lock_alone(tmp_path, caplog):
  path, order = tmp_path / 'folder/.lock', []

  def wait():
    with locks.hold(path, 'prepares it'):
      order.append('second')
  with locks.hold(path, 'prepares it') as holds:
    second = threading.Thread(target=wait)
    second.start()
    while 'waiting for process' not in caplog.text:
      second.join(0.01)
    order.append('first')
  second.join()
  assert holds and order == ['first', 'second'] and not list(path.parent.iterdir())
  assert caplog.text.count('which prepares it') == 1


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
  def refuse(*arguments):
    raise OSError(37, 'No locks available')
  monkeypatch.setattr(fcntl, 'flock', refuse)
  with locks.hold(tmp_path / '.lock', 'prepares it') as holds:
    assert not holds and 'No locks available' in caplog.text


def test_a_dataset_that_another_process_prepares_meanwhile_is_not_prepared_again(tmp_path, monkeypatch):
  write_clinic(tmp_path)
  path = build.locate('clinic', tmp_path / 'data')
  hold = locks.hold

  def wait(*arguments):
    monkeypatch.setattr(locks, 'hold', hold)
    build.prepare('clinic', tmp_path, tmp_path / 'data')
    return hold(*arguments)
  monkeypatch.setattr(locks, 'hold', wait)
  leftover = path.parent / f'incomplete.ABC_{path.name}'  # of a build that was killed
  leftover.mkdir(parents=True)
  build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert [entry.name for entry in path.parent.iterdir()] == [path.name]
