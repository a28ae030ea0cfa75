"""`python -m mtpret_jax.preflight` as a program of its own."""

import re
import subprocess
import sys

import pytest

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
report.find_pod = lambda name: Pod(name, Chip(1e12, MEMORY, 1e11, 1e10), jax.devices('cpu'))
runpy.run_module('mtpret_jax.preflight', run_name='__main__')
"""


def run(*arguments):
  return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300)


def preflight(*arguments):
  return run('-m', 'mtpret_jax.preflight', *arguments)


@pytest.mark.parametrize('arguments, message', [
  ([CONFIG], 'which pod\\? .* --pod=v5e:4x4 .* --pod=h100:8'),
  ([CONFIG, '--pod=v9:2'], "unknown chip 'v9' .*such as v5e:4x4 or h100:8"),
  (['--pod=v5e:4x4'], 'which run\\? Name its config'),
  ([CONFIG, '--pods=v5e:4x4'], 'unknown flag --pods: have --config, .* and --pod'),
  ([CONFIG, '--pod=v5e:4x4', '--distributed'], '--distributed is a flag of python -m mtpret_jax.main'),
  (['--config=configs/evaluate.py', '--pod=v5e:4x4'], 'an evaluation has none')])
def test_a_mistake_in_the_command_is_one_line_with_exit_code_2(arguments, message):
  done = preflight(*arguments)
  assert done.returncode == 2 and not done.stdout
  line, = done.stderr.splitlines()
  assert re.search(message, line)


def test_the_old_flag_is_refused_with_the_new_command():
  done = run('-m', 'mtpret_jax.main', CONFIG, '--preflight=v5e:4x4')
  assert done.returncode == 2 and 'python -m mtpret_jax.preflight' in done.stderr and '--pod=v5e:4x4' in done.stderr


@pytest.mark.parametrize('memory, code', [(1e9, 0), (1e6, 2)])
def test_a_step_is_compiled_and_its_fit_decides_the_exit_code(memory, code):
  """Without the formulations for CPUs: the module that has them cannot be imported here."""
  done = run('-c', FAKE_POD.replace('MEMORY', str(memory)), CONFIG, '--pod=here:2')
  assert done.returncode == code, done.stderr
  assert "pretrain, step 'moco' on here:2: 2 chips, 16 images per chip" in done.stdout
  assert 'HBM per chip' in done.stdout and 'largest batch' in done.stdout
  assert ('does not fit' in done.stderr) == (code == 2)
