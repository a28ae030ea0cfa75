"""Which backend the program will run on, and the backend-specific implementations that replace the defaults there.

A module passes its own implementation to `find` as the default. `mtpret_jax.cpu.install` fills OVERRIDES, and
only on CPUs. This module imports nothing that is slow, such as jax, so that `mtpret_jax.main` can ask it before that.
"""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterator

from mtpret_jax.config.errors import as_line

# Operation -> implementation. 'convolve' and 'convolution_gradients': models/conv.py; 'align_rois':
# models/detection/roi_align.py; 'compiler_options': step.py; 'after_save': runtime/checkpoint.py.
OVERRIDES: dict[str, Callable] = {}

GOOGLE = '0x1ae0'               # PCI vendor
NOT_A_TPU = ('0x01', '0x02')    # PCI classes of Google's virtual disks and network cards


def find(operation: str, default: Callable) -> Callable:
  """The implementation of `operation` that is installed, or `default`."""
  return OVERRIDES.get(operation, default)


@contextlib.contextmanager
def default_implementations() -> Iterator[None]:
  """Nothing is installed for the duration of the `with` block."""
  installed = dict(OVERRIDES)
  OVERRIDES.clear()
  try:
    yield
  finally:
    OVERRIDES.update(installed)


def is_cpu() -> bool:
  """Whether jax will run on the CPU, as far as can be told without starting it.

  JAX_PLATFORMS decides if it is set. Otherwise this is True where there is no GPU plugin and no TPU. Where a plugin
  for GPUs is installed the answer is False, although jax falls back to the CPU if there is no GPU.
  """
  if chosen := os.environ.get('JAX_PLATFORMS'):
    return chosen.split(',')[0].strip().lower() == 'cpu'
  return not has_gpu_plugin() and not has_tpu()


def has_gpu_plugin() -> bool:
  """Whether a plugin for GPUs is installed: all of them add a module to the namespace package `jax_plugins`."""
  return importlib.util.find_spec('jax_plugins') is not None


def has_tpu(root: pathlib.Path = pathlib.Path('/')) -> bool:
  """Whether this machine has a TPU: a device file, or a PCI device from Google that is neither a disk nor a network
  card."""
  if any(root.glob('dev/accel[0-9]*')) or any(root.glob('dev/vfio/[0-9]*')):
    return True
  return any((device / 'vendor').read_text().strip() == GOOGLE
             and not (device / 'class').read_text().startswith(NOT_A_TPU)
             for device in root.glob('sys/bus/pci/devices/*'))


def is_only_absent_tpu() -> bool:
  """Whether JAX_PLATFORMS asks for a TPU and nothing else on a machine without one.
  Importing jax would then search for minutes."""
  chosen = {name.strip().lower() for name in os.environ.get('JAX_PLATFORMS', '').split(',')}
  return chosen == {'tpu'} and not has_tpu()


def explain_failure(error: BaseException) -> str:
  """Why jax could not start its devices, and what to type. `error` is what jax raised: a RuntimeError, or an
  AssertionError without a text where JAX_PLATFORMS=cuda and no plugin for GPUs is installed."""
  chosen = os.environ.get('JAX_PLATFORMS', '')
  reason = as_line(error) or 'no such device, or no plugin for it'
  if chosen:
    return (f'JAX_PLATFORMS={chosen!r}, but jax finds no such device here ({reason}): unset JAX_PLATFORMS to let '
            f'jax choose, set it to cpu, or install what the device needs (pip install -U "jax[cuda12]" or "jax[tpu]")')
  return f'jax cannot start its devices ({reason}): set JAX_PLATFORMS=cpu to run on the CPU'


def skip_libtpu() -> None:
  """Sets JAX_PLATFORMS=cpu if libtpu is installed on a machine without a TPU. jax would otherwise load it, and libtpu
  would print pages of errors. Call this before jax is imported."""
  if not os.environ.get('JAX_PLATFORMS') and importlib.util.find_spec('libtpu'):
    os.environ['JAX_PLATFORMS'] = 'cpu'
