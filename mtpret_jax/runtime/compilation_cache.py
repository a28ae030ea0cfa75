"""Where XLA keeps compiled steps, so that the second start of a run does not compile again."""

import hashlib
import logging
import os
import pathlib
import platform

import jax

from tfds_builders.common import paths

log = logging.getLogger(__name__)

CPUINFO = pathlib.Path('/proc/cpuinfo')


def enable_cache() -> None:
  """Points jax's compilation cache to the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another folder.
  The cache only grows; you can delete it at any time. Without a folder that can be written, nothing is cached: in a
  container there may be no home folder, or one of another user."""
  folder = jax.config.values['jax_compilation_cache_dir'] or find_folder()
  reason = find_obstacle(folder)
  if reason:
    log.warning('compiled steps are not kept for the next start, because %s: set JAX_COMPILATION_CACHE_DIR=<folder> to '
                'keep them', reason)
  jax.config.update('jax_compilation_cache_dir', None if reason else folder)


def find_folder() -> str:
  """The user's cache folder for this program and processor; '' if the user has no home folder."""
  caches = os.environ.get('XDG_CACHE_HOME', '')
  if not os.path.isabs(caches):  # the XDG specification ignores relative paths
    caches = os.path.expanduser('~/.cache')  # stays as it is without HOME and an entry in the list of users
  return os.path.join(caches, 'mtpret_jax', cpu_id()) if os.path.isabs(caches) else ''


def find_obstacle(folder: str) -> str:
  """Why nothing can be cached in `folder`, which is created if needed; '' if something can."""
  if not folder:
    return 'there is no home folder (HOME is not set)'
  if '://' in folder:  # jax also writes to buckets
    return ''
  try:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    paths.check_writable(folder)
  except OSError as error:
    return f'{folder} cannot be written ({error.strerror})'
  return ''


def cpu_id() -> str:
  """A name for the instruction set of this processor. A program compiled for one instruction set may crash on another,
  and hosts often share a home folder."""
  lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
  features = next((line for line in lines if line.startswith(('flags', 'Features'))), platform.processor())
  return f'{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}'
