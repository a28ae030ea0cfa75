"""Several processes: they compute what one computes, refuse together, and none waits for a dead one.

The checks of `benchmarks/hosts.py`, fewer of each."""

import json
import signal

import pytest

from benchmarks import hosts
from mtpret_jax.evaluation import training_probe


@pytest.fixture(scope='module')
def folder(prepared, tmp_path_factory):
  """For the runs. `data` in it is prepared; `compiled` holds what the first process compiles for the next."""
  folder = tmp_path_factory.mktemp('hosts')
  (folder / 'data').symlink_to(prepared)
  return folder


def run_single_process(stage, folder):
  """One process of four devices: the reference for several, compiled in the same way."""
  workdir = folder / f'{stage}_1'
  assert hosts.finish(hosts.start(stage, 1, 4, folder, workdir, [f'--config.workdir={workdir}'])) == [0]


def test_stage_1_in_two_processes_ends_as_in_one_and_only_the_first_reports(folder):
  run_single_process('pretrain', folder)
  assert hosts.check_equal('pretrain', 2, folder) == ''
  ours, alone = (json.loads((folder / name / 'results.json').read_text()) for name in ('pretrain_2', 'pretrain_1'))
  assert [row['dataset'] for row in ours['probe']] == [row['dataset'] for row in alone['probe']]
  probes = [training_probe.read(folder / name) for name in ('pretrain_2', 'pretrain_1')]
  assert [[line['step'] for line in lines] for lines in probes] == [[0, 4, 8], [0, 4, 8]]
  first, other = ((folder / f'pretrain_2.{process}').read_text() for process in (0, 1))
  assert 'scored on the validation split' in first
  assert 'probe at step 4' in first and 'probe at step' not in other
  assert 'validation split' not in other and 'step/s' not in other


@pytest.mark.parametrize('stage', ['one_task', pytest.param('continual', marks=pytest.mark.slow)])
def test_stage_2_in_two_processes_ends_as_in_one_and_validates_alike(stage, folder):
  run_single_process(stage, folder)
  assert hosts.check_equal(stage, 2, folder) == ''


# A process that hangs is watched in tests/runtime/test_distributed.py as well.
@pytest.mark.parametrize('number', [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_process_does_not_wait_for_a_dead_one(number, folder):
  assert hosts.check_death(1, number, folder) == ''


def test_processes_with_different_configs_refuse_together(folder):
  assert hosts.check_refusal(folder) == ''
