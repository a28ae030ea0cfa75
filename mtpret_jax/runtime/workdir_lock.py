"""Allows one run at a time in a workdir."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import platform
import time
from collections.abc import Iterator
from typing import IO

from mtpret_jax.config.errors import ConfigError

log = logging.getLogger(__name__)

FILE = 'run.lock'
POLL = 1.0  # s between two attempts


class InUse(ConfigError):
  """Another run holds the lock."""


@contextlib.contextmanager
def lock(workdir: str | pathlib.Path, wait: bool = False) -> Iterator[None]:
  """Holds the lock of a workdir. If another run holds it, this raises InUse, or with `wait` waits for that run.

  The kernel (flock) releases the lock when the process ends, however it ends, so that no stale lock stays behind. A
  file system without locks gives a warning, and the run continues.
  """
  path = pathlib.Path(workdir, FILE)
  # The file is never deleted: a run could otherwise lock a deleted file while another locks the new one.
  with open(path, 'a+', encoding='utf-8') as file:
    acquire(file, path, wait)
    file.truncate(0)
    json.dump({'host': platform.node(), 'pid': os.getpid(),
               'since': datetime.datetime.now().isoformat(timespec='seconds')}, file)
    file.flush()
    yield


def acquire(file: IO[str], path: pathlib.Path, wait: bool) -> None:
  """Locks the open file. Polls while it waits: a blocking flock can return late on network file systems."""
  waiting = False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError:
      if not wait:
        raise InUse(f'{path.parent} is in use by {describe_holder(path)}: wait for it, stop it, or give another '
                    f'--config.workdir') from None
      if not waiting:
        log.info('waiting for %s, which works in %s', describe_holder(path), path.parent)
      waiting = True
      time.sleep(POLL)
    except OSError as error:
      log.warning('%s cannot be locked (%s): make sure that no other run writes there', path, error.strerror)
      return


def describe_holder(path: pathlib.Path) -> str:
  """Which process wrote the lock file, in words."""
  try:
    holder = json.loads(path.read_text(encoding='utf-8'))
    return f'process {holder["pid"]} on {holder["host"]}, since {holder["since"]}'
  except (OSError, ValueError, KeyError):
    return 'another run'
