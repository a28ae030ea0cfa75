"""Where XLA keeps compiled steps, so that the second start of a run does not compile again."""

import hashlib
import logging
import os
import pathlib
import platform

import jax

log = logging.getLogger(__name__)

CPUINFO = pathlib.Path('/proc/cpuinfo')


def enable_cache() -> None:
  """Points jax's compilation cache to the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another folder.
  The cache only grows; you can delete it at any time."""
  folder = jax.config.values['jax_compilation_cache_dir']
  if not folder:
    caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path('~/.cache').expanduser()
    folder = str(pathlib.Path(caches, 'mtpret_jax', cpu_id()))
    jax.config.update('jax_compilation_cache_dir', folder)
  log.debug('compiled steps are cached in %s', folder)


def cpu_id() -> str:
  """A name for the instruction set of this processor. A program compiled for one instruction set may crash on another,
  and hosts often share a home folder."""
  lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
  features = next((line for line in lines if line.startswith(('flags', 'Features'))), platform.processor())
  return f'{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}'
