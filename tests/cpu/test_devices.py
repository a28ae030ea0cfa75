"""Cores as devices: as many as can share the batches by whole batch-norm groups."""

import functools
import os
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from configs import continual, evaluate, finetune, mtpret, pretrain
from mtpret_jax.cpu import compiler
from mtpret_jax.cpu.devices import find_most
from mtpret_jax.stages.checks import can_use_devices


def count_devices(config: ConfigDict) -> int:
  return find_most(functools.partial(can_use_devices, config))


@pytest.fixture
def eight_cores(monkeypatch):
  monkeypatch.setattr('mtpret_jax.cpu.devices.cpu_count', lambda: 8)


@pytest.mark.parametrize('cores, batch, group, devices', [
  (1, 64, 16, 1), (2, 64, 16, 2), (3, 64, 16, 2), (6, 64, 16, 4), (6, 96, 16, 6), (64, 256, 16, 8), (2, 48, 16, 1)])
def test_cores_share_a_batch_by_whole_groups(cores, batch, group, devices, monkeypatch):
  monkeypatch.setattr('mtpret_jax.cpu.devices.cpu_count', lambda: cores)
  config = pretrain.get_config()
  config.update(batch=batch)
  config.augment.size = 128
  config.moco.update(group=group, queue=16 * batch, shuffle_groups=batch // group)
  assert count_devices(config) == devices


@pytest.mark.parametrize('size, devices', [(32, 1), (64, 1), (95, 1), (96, 4), (224, 4)])
def test_small_views_stay_on_one_device(size, devices, eight_cores):
  config = pretrain.get_config()
  config.augment.size = size
  assert count_devices(config) == devices


def test_a_group_of_the_whole_batch_stays_on_one_device(eight_cores):
  config = continual.get_config()
  for task_config in config.tasks.values():
    task_config.group = task_config.batch
    task_config.augment.size = 128
  assert count_devices(config) == 1


def test_a_recipe_has_the_devices_that_all_its_stages_can_share(eight_cores):
  recipe = mtpret.get_config('smoke')
  recipe.stages.pretrain.augment.size = 128
  assert count_devices(recipe.stages.pretrain.copy_and_resolve_references()) == 4
  assert count_devices(recipe) == 1  # stage 2 has batches of one group


def test_an_invalid_config_gets_one_device_and_is_reported_later(eight_cores):
  config, recipe = finetune.get_config('smoke,pneumonia'), mtpret.get_config('smoke')
  config.tasks.pneumonia.batch = -3
  del recipe.stages
  assert count_devices(config) == count_devices(recipe) == 1


def test_an_evaluation_has_one_device(eight_cores):
  """Its batches need not divide into groups."""
  assert count_devices(evaluate.get_config()) == 1


@pytest.mark.parametrize('given, devices', [
  ({}, 2), ({'XLA_FLAGS': '--xla_force_host_platform_device_count=3'}, 3), ({'JAX_NUM_CPU_DEVICES': '1'}, 1)])
def test_a_number_of_devices_in_the_environment_wins(given, devices):
  program = ("from mtpret_jax import cpu; from mtpret_jax.cpu import devices; import jax\n"
             "devices.cpu_count = lambda: 2; cpu.install(lambda count: True); print(jax.device_count())")
  environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'} | given
  done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=True)
  assert int(done.stdout) == devices


@pytest.mark.parametrize('cores, single', [(1, False), (4, True), (8, True), (9, False)])
def test_the_order_of_operations_saves_memory_where_every_core_is_a_device(cores, single, monkeypatch):
  monkeypatch.setattr('mtpret_jax.cpu.devices.cpu_count', lambda: cores)
  assert jax.device_count() == 8
  assert ('xla_cpu_scheduler_type' in compiler.choose_options()) == single
