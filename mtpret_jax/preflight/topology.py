"""Devices of a pod that is not attached, by its name: `v5e:4x4` is a slice of TPUs, `h100:8` a host with GPUs."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.preflight.chip_specs import CHIPS, Chip, describe_gpu

# GPUs of one host are joined by NVLink. Networks between hosts differ, so there is no figure for several hosts.
GPUS_PER_HOST = 8
EXAMPLES = 'v5e:4x4, v6e:2x4, v5p:2x2x4 or v4:2x2x4'
# libtpu only compiles here: it must not look for chips or ask the metadata server, and other processes on this machine
# may have loaded it as well.
LIBTPU_SETTINGS = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
                   'TPU_WORKER_HOSTNAMES': 'localhost', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_STDERR_LOG_LEVEL': '3',
                   'TPU_MIN_LOG_LEVEL': '3'}


@dataclasses.dataclass(frozen=True)
class Pod:
  """`devices` can be compiled for, but run nothing."""

  name: str
  chip: Chip
  devices: Sequence[jax.Device]

  @property
  def processes(self) -> int:
    return len({device.process_index for device in self.devices})


def find_pod(name: str) -> Pod:
  """The pod called `name`: a chip of `chip_specs.CHIPS`, a colon, and the number of GPUs or the shape of the TPU slice.

  Raises:
    ConfigError: there is no such pod, or the compiler for it is not installed.
  """
  kind, _, shape = name.partition(':')
  if kind not in CHIPS:
    raise ConfigError(f'unknown chip {kind!r} in --pod={name}: choose one of {", ".join(CHIPS)}, and give it with a '
                      f'shape, such as v5e:4x4 or h100:8')
  chip = CHIPS[kind]
  devices = list_gpus(name, chip, shape) if chip.gpu else list_tpus(name, shape)
  return Pod(name, chip, devices)


def list_gpus(name: str, chip: Chip, shape: str) -> Sequence[jax.Device]:
  if not re.fullmatch('[0-9]{1,3}', shape) or not 1 <= int(shape) <= GPUS_PER_HOST:
    raise ConfigError(f'--pod={name} needs the number of GPUs in one host, 1 to {GPUS_PER_HOST}, '
                      f'such as {name.partition(":")[0]}:{GPUS_PER_HOST}')
  if not any(importlib.util.find_spec(f'jax_cuda{major}_plugin') for major in (12, 13)):
    raise ConfigError(f'--pod={name} needs JAX\'s CUDA plugin (not a GPU); install it with: pip install "jax[cuda12]"')
  return topologies.get_topology_desc(
    platform='cuda', target_config=describe_gpu(chip), topology=f'1x1x{shape}').devices


def list_tpus(name: str, shape: str) -> Sequence[jax.Device]:
  if not re.fullmatch(r'[0-9]{1,4}(x[0-9]{1,4}){1,2}', shape):
    raise ConfigError(f'--pod={name} has no valid shape: give the sides in chips, such as v5e:4x4 or v5p:2x2x4')
  if not importlib.util.find_spec('libtpu'):
    raise ConfigError(f'--pod={name} needs libtpu (not a TPU); install it with: pip install "jax[tpu]"')
  for field, value in LIBTPU_SETTINGS.items():
    os.environ.setdefault(field, value)
  try:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  except Exception as error:  # the type depends on the version of XLA
    reason = as_line(str(error).strip().partition('\n')[0])
    raise ConfigError(f'libtpu does not support the slice {name!r} ({reason}): try another shape, such as {EXAMPLES}'
                      ) from error
  if len(devices) != math.prod(int(side) for side in shape.split('x')):
    raise ConfigError(f'--pod={name} has {len(devices)} devices, not one for each chip, which is not supported: try '
                      f'another chip, such as {EXAMPLES}')
  return devices
