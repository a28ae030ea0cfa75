"""The batches of worker processes must fit into shared memory."""

import shutil
import types

import pytest

from configs import continual, pretrain
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import shared_memory


@pytest.fixture
def leave(monkeypatch, tmp_path):
  """leave(bytes): leaves so many free."""
  monkeypatch.setattr(shared_memory, 'SHARED', tmp_path)
  return lambda free: monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=free))


def test_stage_1_needs_two_copies_of_its_images(leave):
  config = pretrain.get_config('mtpret11')
  needed = 4 * config.data.workers * 2 * 256 * 256 ** 2
  leave(needed)
  shared_memory.check_shared_memory(config)
  leave(needed - 1)
  with pytest.raises(ConfigError, match='are free: try --config.data.workers=0 or enlarge .*--shm-size=1200m'):
    shared_memory.check_shared_memory(config)
  shared_memory.check_shared_memory(config, processes=2)


def test_stage_2_needs_its_largest_task_and_joint_steps_need_all(leave):
  config = continual.get_config()
  config.data.workers = 2
  sizes = {name: task_config.batch * task_config.size ** 2 for name, task_config in config.tasks.items()}
  sizes['lung'] *= 2  # its mask
  for order, largest in (('cyclic_reshuffled', max(sizes.values())), ('joint', sum(sizes.values()))):
    config.order = order
    leave(8 * largest)
    shared_memory.check_shared_memory(config)
    leave(8 * largest - 1)
    with pytest.raises(ConfigError):
      shared_memory.check_shared_memory(config)


def test_nothing_is_checked_without_workers_or_without_shared_memory(leave, monkeypatch, tmp_path):
  leave(0)
  shared_memory.check_shared_memory(pretrain.get_config())
  monkeypatch.setattr(shared_memory, 'SHARED', tmp_path / 'none')
  shared_memory.check_shared_memory(pretrain.get_config('mtpret11'))
