"""Checks that the batches of worker processes fit into shared memory."""

import math
import pathlib
import shutil

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.tasks import find_kind

SHARED = pathlib.Path('/dev/shm')  # where workers put their batches on Linux; containers often have 64 MB there
# Per worker, at most. Grain's worker has copied one batch there and waits until its queue, which holds another, has
# space. In the run, a thread has read a third from that queue and waits until its own buffer, which holds a fourth, has
# space.
BATCHES = 4


def check_shared_memory(config: ConfigDict, processes: int = 1) -> None:
  """Raises ConfigError if the largest batches of a config do not fit: SIGBUS would kill a worker in the middle of a
  run. The check is for one of `processes`, as if it were alone on its host."""
  workers = config.data.workers
  needed = BATCHES * workers * largest_batch(config) // processes
  if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < needed:
    size = f'{math.ceil(1.1 * needed / 1e8)}00m'
    raise ConfigError(
      f'data.workers={workers} may need {needed / 1e6:.0f} MB in {SHARED}, where {free / 1e6:.0f} MB are free',
      {'data.workers': 0},
      f' or enlarge {SHARED} (docker run --shm-size={size}; Kubernetes: an emptyDir with medium: Memory)')


def largest_batch(config: ConfigDict) -> int:
  """Bytes of the largest batch over all processes. Only images and masks count; everything else is small."""
  if config.objective == 'moco':
    return 2 * config.batch * config.data.size ** 2
  sizes = [task_config.batch * task_config.size ** 2 * (2 if find_kind(task_config.kind).dense else 1)
           for task_config in config.tasks.values()]
  return sum(sizes) if config.order == 'joint' else max(sizes)
