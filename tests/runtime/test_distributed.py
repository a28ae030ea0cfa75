"""Several processes: who owns which devices, what is refused, and how a wait ends. A run may go on with fewer devices.

Runs of several processes are in tests/benchmarks/test_hosts.py."""

import dataclasses
import os
import shutil
import subprocess
import sys

import jax
import pytest

from mtpret_jax import stages, train
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import predict
from mtpret_jax.runtime import distributed
from mtpret_jax.runtime.sharding import make_mesh
from tests.support import small_runs
from tests.support.compare_runs import compare_runs
from tests.support.paths import ROOT


@pytest.fixture(scope='module')
def pretrain(prepared, one_block, tmp_path_factory):
  """(config, workdir) of stage 1 on the eight devices of this process."""
  config = small_runs.make_pretrain()
  config.data.dir = str(prepared)
  workdir = tmp_path_factory.mktemp('eight_devices')
  stages.train_stage(config.lock(), workdir)
  return config, workdir


@pytest.mark.parametrize('devices', [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_of_eight_devices_goes_on_with_fewer_on_the_same_curve(devices, pretrain, tmp_path, monkeypatch):
  config, eight_devices = pretrain
  workdir = tmp_path / 'fewer'
  shutil.copytree(eight_devices, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '8')
  (workdir / 'checkpoints' / '8.sha256').unlink()
  for module in (train, predict):
    monkeypatch.setattr(module, 'make_mesh', lambda: make_mesh(jax.devices()[:devices]))
  state = stages.train_stage(config, workdir)
  assert len(state.step.sharding.device_set) == devices
  assert compare_runs(workdir, eight_devices) == ''


@dataclasses.dataclass(frozen=True)
class Device:
  id: int
  process_index: int


def test_the_devices_of_a_process_lie_side_by_side_whatever_their_numbers():
  devices = [Device(number, number // 2 % 2) for number in range(8)]
  assert [device.process_index for device in make_mesh(devices).devices] == [0] * 4 + [1] * 4


@pytest.mark.parametrize('given, said', [
  (('host:1', None, 0), '--processes missing'), (('host:1', None, None), '--processes and --process missing')])
def test_half_an_address_is_refused_with_what_is_missing(given, said):
  with pytest.raises(ConfigError, match=said):
    distributed.join(*given, timeout=5)


def test_a_wait_that_does_not_end_ends_the_process_and_other_work_may_take_its_time():
  script = ('import time; from mtpret_jax.runtime import watchdog; watchdog.start(1, 7)\n'
            'time.sleep(1.5)\n'
            'with watchdog.time_limit("step 1"): pass\n'
            'time.sleep(1.5); print("alive", flush=True)\n'
            'with watchdog.time_limit("step 2"): time.sleep(60)')
  done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, env=os.environ, capture_output=True, text=True,
                        timeout=30)
  assert done.returncode == 7 and done.stdout == 'alive\n'
  assert 'waited 1 s for step 2: another process is dead or stuck' in done.stderr
