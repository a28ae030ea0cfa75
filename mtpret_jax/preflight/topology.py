"""A pod by name, `v5e:4x4` or `h100:8`, as XLA wants it to compile for: nothing of it need be there."""

import dataclasses
import importlib.util
import math
import os
import re

from jax.experimental import topologies

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.preflight.chip_specs import CHIPS, Chip, describe_gpu

IN_ONE_HOST = 8  # GPUs that NVLink joins; what is between hosts is the cluster's own and not in the table of chips
# Only compiles: no chip is looked for, and another process of this machine may have the library loaded.
SETTING = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8', 'TPU_WORKER_HOSTNAMES': 'localhost',
           'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_STDERR_LOG_LEVEL': '3', 'TPU_MIN_LOG_LEVEL': '3'}


@dataclasses.dataclass(frozen=True)
class Pod:
  name: str
  chip: Chip
  devices: list

  @property
  def processes(self):
    return len({device.process_index for device in self.devices})


def find_pod(name):
  """The pod called `name`: a chip of `chips.CHIPS`, a colon and the number of GPUs, or the sides of the TPU slice.
  Raises ConfigError where there is no such pod, or not what compiles for it."""
  kind, _, shape = name.partition(':')
  if kind not in CHIPS:
    raise ConfigError(f'unknown chip {kind!r} in --preflight={name}; have {", ".join(CHIPS)}')
  chip = CHIPS[kind]
  devices = list_gpus(name, chip, shape) if chip.gpu else list_tpus(name, shape)
  return Pod(name, chip, devices)


def list_gpus(name, chip, shape):
  if not re.fullmatch('[0-9]{1,3}', shape) or not 1 <= int(shape) <= IN_ONE_HOST:
    raise ConfigError(f'no GPUs by the name of --preflight={name}: give their number in one host, 1 to {IN_ONE_HOST}, '
                      f'such as {name.partition(":")[0]}:{IN_ONE_HOST}')
  if not any(importlib.util.find_spec(f'jax_cuda{major}_plugin') for major in (12, 13)):
    raise ConfigError(f'--preflight={name} needs the CUDA plugin of JAX (no GPU): pip install "jax[cuda12]"')
  return topologies.get_topology_desc(
    platform='cuda', target_config=describe_gpu(chip), topology=f'1x1x{shape}').devices


def list_tpus(name, shape):
  if not re.fullmatch(r'[0-9]{1,4}(x[0-9]{1,4}){1,2}', shape):
    raise ConfigError(f'no slice by the name of --preflight={name}: give its sides in chips, such as v5e:4x4 or '
                      f'v5p:2x2x4')
  if not importlib.util.find_spec('libtpu'):
    raise ConfigError(f'--preflight={name} needs libtpu (no TPU): pip install -r benchmarks/requirements.txt, or '
                      f'pip install libtpu')
  for field, value in SETTING.items():
    os.environ.setdefault(field, value)
  try:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices
  except Exception as error:  # XLA's own types, by the version
    raise ConfigError(f'libtpu knows no slice {name!r} ({str(error).strip().splitlines()[0][:160]}): try another '
                      f'shape, such as v5e:4x4, v6e:2x4, v5p:2x2x4 or v4:2x2x4') from error
  if len(devices) != math.prod(int(side) for side in shape.split('x')):
    raise ConfigError(f'{name} has {len(devices)} devices, not one for each chip: this is not supported')
  return devices
