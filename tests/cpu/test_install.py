"""Nothing under mtpret_jax/cpu is imported on a TPU or GPU; `cpu.install` puts all of it in place on a CPU."""

import os
import subprocess
import sys

import jax
import pytest

from mtpret_jax import cpu, step
from mtpret_jax.cpu import conv
from mtpret_jax.runtime import backend
from tests.support.paths import ROOT

# Sets up a command where JAX_PLATFORMS names another backend, then lowers a step. That happens on the CPU, because the
# other backend is not here; `choose_options` gets a device that claims to be of it.
BUILD_A_STEP = '''
import os, sys
from mtpret_jax.runtime import backend
name, is_cpu = os.environ['JAX_PLATFORMS'], backend.is_cpu()
import jax
jax.config.update('jax_platforms', 'cpu')
backend.is_cpu, jax.default_backend = lambda: is_cpu, lambda: name

from configs import pretrain
from mtpret_jax import cli, step
from mtpret_jax.models import resnet
from mtpret_jax.objectives.moco import make_moco
from mtpret_jax.runtime.sharding import make_mesh
config = pretrain.get_config('smoke')
resnet.LAYERS[config.trunk] = resnet.BasicBlock, (1, 0, 0, 0)  # traced in little time
cli.set_up_cpu(config, single_process=True)
mesh, objective, optimiser = make_mesh(), make_moco(config), step.make_optimiser(config.optimiser)
images = jax.ShapeDtypeStruct((config.batch, config.data.size, config.data.size, 1), 'uint8')
batch = {'query': images, 'key': images, 'source': jax.ShapeDtypeStruct((config.batch,), 'int32')}
compiled = step.compile_step(objective, optimiser, lambda step: 0.1, 'moco', mesh, seed=0)
compiled.lower(step.shape_state(objective, optimiser), batch)
print(*[module for module in sys.modules if module.startswith('mtpret_jax.cpu')])
'''


def run(*command, platform):
  return subprocess.run([sys.executable, *command], cwd=ROOT, text=True, capture_output=True,
                        env={**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': platform})


@pytest.mark.parametrize('platform, imported', [
  ('tpu', False), pytest.param('cuda', False, marks=pytest.mark.slow), ('cpu', True)])
def test_a_step_for_another_backend_imports_nothing_for_cpus(platform, imported):
  done = run('-c', BUILD_A_STEP, platform=platform)
  assert done.returncode == 0, done.stderr
  assert ('mtpret_jax.cpu.winograd' in done.stdout) == ('mtpret_jax.cpu' in done.stdout) == imported


@pytest.mark.parametrize('platform, imported', [('tpu', False), ('cuda,cpu', False), ('cpu', True)])
def test_the_command_imports_nothing_for_cpus_on_another_backend(platform, imported):
  # The mistake in the config is found after everything is imported, and before a backend starts.
  done = run('-X', 'importtime', '-m', 'mtpret_jax.main', '--config=configs/evaluate.py', '--config.objective=none',
             platform=platform)
  assert 'mtpret_jax.cli' in done.stderr
  assert ('mtpret_jax.cpu' in done.stderr) == imported


def test_install_replaces_every_operation_that_has_a_formulation_for_cpus(monkeypatch):
  monkeypatch.setattr(backend, 'OVERRIDES', {})
  monkeypatch.setattr('mtpret_jax.cpu.devices.cpu_count', lambda: 2)  # and eight devices
  device = jax.devices()[0]
  step.choose_options.cache_clear()
  assert backend.find('convolve', sum) is sum and step.choose_options(device) == {}
  cpu.install()
  step.choose_options.cache_clear()
  assert backend.find('convolve', sum) is conv.convolve_on_devices
  assert backend.find('convolution_gradients', sum) is conv.gradients_on_devices
  assert 'xla_cpu_scheduler_type' in step.choose_options(device)
  assert jax.device_count() == 8  # only `fits` makes devices
