"""Allows one run at a time in a workdir."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator

from mtpret_jax.config.errors import ConfigError
from tfds_builders.common import locks

log = logging.getLogger(__name__)

FILE = 'run.lock'


class InUse(ConfigError):
  """Another run holds the lock."""


@contextlib.contextmanager
def lock(workdir: str | pathlib.Path, wait: bool = False) -> Iterator[None]:
  """Holds the lock of a workdir, which is created if it is not there. If another run holds it, this raises InUse, or
  with `wait` waits for that run.

  A file system without locks gives a warning, and the run continues.
  """
  path = pathlib.Path(workdir, FILE)
  path.parent.mkdir(parents=True, exist_ok=True)

  def on_busy() -> None:
    if not wait:
      raise InUse(f'{path.parent} is in use by {locks.describe_holder(path)}: wait for it, stop it, or give another '
                  f'--config.workdir')
    log.info('waiting for %s, which works in %s', locks.describe_holder(path), path.parent)

  # The file is never deleted: a run could otherwise lock a deleted file while another locks the new one.
  with open(path, 'a+', encoding='utf-8') as file:
    locks.acquire(file, path, on_busy)
    locks.sign(file)
    yield
