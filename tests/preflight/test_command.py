"""`python -m mtpret_jax.preflight` as a program of its own."""

import re
import subprocess
import sys
import types

import pytest

from configs import pretrain
from mtpret_jax.preflight import __main__ as command
from mtpret_jax.preflight import report
from tests.support.paths import ROOT

CONFIG = '--config=configs/pretrain.py:smoke'
# The program with two fake CPU devices in place of a pod, since libtpu may be absent, and a trunk that compiles fast.
FAKE_POD = """
import runpy, sys
sys.modules['mtpret_jax.cpu'] = None  # importing it raises ImportError
import jax
jax.config.update('jax_num_cpu_devices', 2)
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from mtpret_jax.preflight import report
from mtpret_jax.preflight.chip_specs import Chip
from mtpret_jax.preflight.topology import Pod
LAYERS['resnet18'] = BasicBlock, (1, 0, 0, 0)
report.find_pod = lambda name: Pod(name, Chip(1e12, 1e9, 1e11, 1e10), jax.devices('cpu'))
runpy.run_module('mtpret_jax.preflight', run_name='__main__')
"""


def run(*arguments):
  return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize('arguments, message', [
  ([CONFIG], r'no pod given: .* --pod=v5e:4x4 .* --pod=h100:8'),
  ([CONFIG, '--pods=v5e:4x4'], 'unknown flag --pods: the flags are --config, .* and --pod'),
  ([CONFIG, '--pod=v5e:4x4', '--distributed'], 'leave out --distributed: it is a flag of python -m mtpret_jax.main')])
def test_a_mistake_in_the_command_is_one_line_with_exit_code_2(arguments, message):
  done = run('-m', 'mtpret_jax.preflight', *arguments)
  assert done.returncode == 2 and not done.stdout
  line, = done.stderr.splitlines()
  assert re.search(message, line)


def test_help_is_about_this_command_alone(capsys):
  with pytest.raises(SystemExit) as stopped:
    command.parse_or_help(['preflight', CONFIG, '--help'])
  printed = capsys.readouterr().out
  assert stopped.value.code == 0 and printed.startswith('Compiles the steps of a run') and 'Exit codes: 0' in printed
  assert all(flag in printed for flag in ('--config=FILE:VARIANT', '--config.FIELD=VALUE', '--pod=CHIP:SHAPE'))
  assert 'absl' not in printed and 'pdb' not in printed


def test_a_step_is_compiled_without_the_formulations_for_cpus():
  done = run('-c', FAKE_POD, CONFIG, '--pod=here:2')
  assert done.returncode == 0, done.stderr
  assert "pretrain, step 'moco' on here:2: 2 chips, 16 images per chip" in done.stdout
  assert 'HBM per chip' in done.stdout and 'largest batch' in done.stdout


def test_a_step_that_does_not_fit_has_exit_code_2(monkeypatch, capsys):
  def run_without_memory(config, pod_name):
    raise report.DoesNotFit(f'{config.name} does not fit on {pod_name}')
  monkeypatch.setattr(report, 'run', run_without_memory)
  monkeypatch.setattr(command.cli, 'CONFIG', types.SimpleNamespace(value=pretrain.get_config('smoke')))
  monkeypatch.setattr(command, 'POD', types.SimpleNamespace(value='v5e:4x4'))
  with pytest.raises(SystemExit) as stopped:
    command.main([])
  assert stopped.value.code == 2 and 'pretrain does not fit on v5e:4x4' in capsys.readouterr().err
