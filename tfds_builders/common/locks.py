"""Locks files, so that two processes never write one thing at the same time.

The kernel (flock) releases a lock when its process ends, however it ends, so that no stale lock stays behind.
"""
import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import IO

log = logging.getLogger(__name__)

POLL = 1.0  # s between two attempts


@contextlib.contextmanager
def hold(path: pathlib.Path, work: str) -> Iterator[bool]:
  """Holds the lock file `path` during the `with` block, and waits for a process that holds it; `work` says in the log
  what that process does. Nothing is left of the file. Yields whether the lock holds: some file systems have none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  while True:
    with open(path, 'a+', encoding='utf-8') as file:
      holds = acquire(file, path, lambda: log.warning('waiting for %s, which %s', describe_holder(path), work))
      if holds and not is_same_file(file, path):  # the process that held it has removed it
        continue
      sign(file)
      try:
        yield holds
      finally:
        path.unlink(missing_ok=True)  # while it is locked: whoever waits for it then notices
      return


def acquire(file: IO[str], path: pathlib.Path, on_busy: Callable[[], None]) -> bool:
  """Locks the open file; returns False, with a warning, where the file system has no locks. Calls `on_busy` once if
  another process holds the lock, and then waits unless that raises.

  Polls while it waits: a blocking flock can return late on network file systems.
  """
  waiting = False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      if not waiting:
        on_busy()
      waiting = True
      time.sleep(POLL)
    except OSError as error:
      log.warning('%s cannot be locked (%s): make sure that no other process writes there', path, error.strerror)
      return False


def is_same_file(file: IO[str], path: pathlib.Path) -> bool:
  """Whether the open file is still what lies at `path`."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


def sign(file: IO[str]) -> None:
  """Writes into a lock file who holds it."""
  file.truncate(0)
  json.dump({'host': platform.node(), 'pid': os.getpid(),
             'since': datetime.datetime.now().isoformat(timespec='seconds')}, file)
  file.flush()


def describe_holder(path: pathlib.Path) -> str:
  """Which process wrote a lock file, in words."""
  try:
    holder = json.loads(path.read_text(encoding='utf-8'))
    return f'process {holder["pid"]} on {holder["host"]}, since {holder["since"]}'
  except (OSError, ValueError, KeyError, TypeError):
    return 'another process'
