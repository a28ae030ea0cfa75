"""One run at a time in a folder."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import platform

from mtpret_jax.config.errors import ConfigError

log = logging.getLogger(__name__)

FILE = 'run.lock'


@contextlib.contextmanager
def lock(workdir):
  """Raises ConfigError where another program holds the folder. The lock is the kernel's (flock): it goes with the
  process that has it, so that nothing of a dead one is in the way. Where the file system has no locks, that is told and
  the run goes on."""
  path = pathlib.Path(workdir, FILE)
  with open(path, 'a+', encoding='utf-8') as file:  # stays: another may hold the lock on a file that is deleted
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ConfigError(f'{workdir} is in use by {describe_holder(path)}: wait for it, stop it, or give another '
                        f'--config.workdir') from None
    except OSError as error:
      log.warning('%s cannot be locked (%s): take care that no other run writes there', path, error.strerror)
    file.truncate(0)
    json.dump({'host': platform.node(), 'pid': os.getpid(),
               'since': datetime.datetime.now().isoformat(timespec='seconds')}, file)
    file.flush()
    yield


def describe_holder(path):
  try:
    holder = json.loads(path.read_text(encoding='utf-8'))
    return f'process {holder["pid"]} on {holder["host"]}, since {holder["since"]}'
  except (OSError, ValueError, KeyError):
    return 'another run'
