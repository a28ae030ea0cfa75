"""Several processes: they end as one does, refuse together, and none waits for a dead one.

`benchmarks/hosts.py` has more of each; these are the same checks."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from benchmarks import hosts as bench
from benchmarks.support import tiny
from mtpret_jax import stages, train
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import predict
from mtpret_jax.runtime import distributed
from mtpret_jax.runtime.sharding import make_mesh


@pytest.fixture(scope='module')
def folder(prepared, tmp_path_factory):
  """For the runs; `data` in it is prepared, `compiled` is what one process leaves for the next."""
  folder = tmp_path_factory.mktemp('hosts')
  (folder / 'data').symlink_to(prepared)
  return folder


@pytest.fixture(scope='module')
def single_process(folder):
  """Stages 1 and 2 in one process of four devices: what several are compared with, compiled in the same way."""
  for stage in ('pretrain', 'continual'):
    workdir = folder / f'{stage}_1'
    assert bench.finish(bench.start(stage, 1, 4, folder, workdir, [f'--config.workdir={workdir}'])) == [0]
  return folder


@pytest.fixture(scope='module')
def pretrain(prepared, one_block, tmp_path_factory):
  """(config, workdir) of stage 1 in this process, on its eight devices."""
  config = tiny.get_config('pretrain')
  config.data.dir = str(prepared)
  workdir = tmp_path_factory.mktemp('alone')
  stages.train_stage(config.lock(), workdir)
  return config, workdir


def test_stage_1_in_two_processes_ends_as_in_one_and_only_the_first_reports(single_process):
  assert bench.check_equal('pretrain', 2, single_process) == ''
  ours, alone = (json.loads((single_process / name / 'results.json').read_text())
                 for name in ('pretrain_2', 'pretrain_1'))
  assert [row['dataset'] for row in ours['probe']] == [row['dataset'] for row in alone['probe']]
  first, other = ((single_process / f'pretrain_2.{process}').read_text() for process in (0, 1))
  assert 'Probe on the validation split' in first and 'Probe' not in other and 'step/s' not in other


def test_stage_2_in_two_processes_ends_as_in_one_and_validates_alike(single_process):
  assert bench.check_equal('continual', 2, single_process) == ''


@pytest.mark.parametrize('devices', [4, 1])
def test_a_run_of_eight_devices_goes_on_with_fewer_on_the_same_curve(devices, pretrain, tmp_path, monkeypatch):
  config, alone = pretrain
  workdir = tmp_path / 'fewer'
  shutil.copytree(alone, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '8')
  (workdir / 'checkpoints' / '8.sha256').unlink()
  for module in (train, predict):
    monkeypatch.setattr(module, 'make_mesh', lambda: make_mesh(jax.devices()[:devices]))
  state = stages.train_stage(config, workdir)
  assert len(state.step.sharding.device_set) == devices
  assert bench.judge(workdir, alone) == ''


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_does_not_wait_for_a_dead_one(number, folder):
  assert bench.check_death(1, number, folder) == ''


def test_processes_with_different_configs_refuse_together(folder):
  assert bench.check_refusal(folder) == ''


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
  done = subprocess.run([sys.executable, '-c', script], cwd=bench.ROOT, env=os.environ, capture_output=True, text=True,
                        timeout=30)
  assert done.returncode == 7 and done.stdout == 'alive\n'
  assert 'waited 1 s for step 2: another process is dead or stuck' in done.stderr
