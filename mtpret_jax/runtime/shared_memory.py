"""Room for the batches that processes hand over."""

import math
import pathlib
import shutil

from mtpret_jax.config.errors import ConfigError

SHARED = pathlib.Path('/dev/shm')  # where processes hand batches over, on Linux; containers often have 64 MB there
HANDED = 4  # batches of each worker that may lie there: being copied, waiting, held by a thread, next in turn


def check_shared_memory(config, processes=1):
  """Raises ConfigError where the largest batches of a config do not fit: a worker would be killed by SIGBUS. Of one of
  `processes`; where several share a host, each needs as much."""
  workers = config.data.workers
  needed = HANDED * workers * count_bytes(config) // processes
  if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < needed:
    size = f'{math.ceil(1.1 * needed / 1e8)}00m'
    raise ConfigError(
      f'data.workers={workers} may need {needed / 1e6:.0f} MB in {SHARED}, where {free / 1e6:.0f} MB are free: give it '
      f'more (docker run --shm-size={size}; Kubernetes: an emptyDir with medium: Memory), or', {'data.workers': 0})


def count_bytes(config):
  """Of the largest batch, over all processes: images and masks, beside which nothing else counts."""
  if config.objective == 'moco':
    return 2 * config.batch * config.data.size ** 2
  sizes = [task_config.batch * task_config.size ** 2 * (2 if task_config.kind == 'segmentation' else 1) for task_config in config.tasks.values()]
  return sum(sizes) if config.order == 'joint' else max(sizes)
