"""Where XLA keeps what it compiled, so that the second start of a run does not compile again."""

import hashlib
import os
import pathlib
import platform

import jax

CPUINFO = pathlib.Path('/proc/cpuinfo')


def enable_cache():
  """Sets jax's compilation cache to the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another. It only
  grows: delete it at will."""
  if not jax.config.jax_compilation_cache_dir:
    caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path('~/.cache').expanduser()
    jax.config.update('jax_compilation_cache_dir', str(pathlib.Path(caches, 'mtpret_jax', cpu_id())))


def cpu_id():
  """The same for processors with the same instructions: programs for the CPU run on no others, and homes are shared."""
  lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
  able = next((line for line in lines if line.startswith(('flags', 'Features'))), platform.processor())
  return f'{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}'
