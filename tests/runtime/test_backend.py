"""Which backend jax will run on is known before jax is imported."""

import os
import subprocess
import sys

import pytest

from mtpret_jax.runtime import backend
from tests.support.paths import ROOT


@pytest.fixture
def bare(monkeypatch):
  """No choice of the user, no plugin for GPUs, no TPU."""
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setattr(backend, 'has_gpu_plugin', lambda: False)
  monkeypatch.setattr(backend, 'has_tpu', lambda: False)
  return monkeypatch


@pytest.mark.parametrize('chosen, cpu', [('cpu', True), ('CPU', True), ('cpu,cuda', True), ('', True), ('tpu', False),
                                         ('cuda,cpu', False)])
def test_the_users_choice_decides(chosen, cpu, bare):
  bare.setenv('JAX_PLATFORMS', chosen)
  assert backend.is_cpu() == cpu


@pytest.mark.parametrize('name', ['has_gpu_plugin', 'has_tpu'])
def test_an_accelerator_is_not_passed_over(name, bare):
  assert backend.is_cpu()
  bare.setattr(backend, name, lambda: True)
  assert not backend.is_cpu()
  bare.setenv('JAX_PLATFORMS', 'cpu')
  assert backend.is_cpu()


@pytest.mark.parametrize('chosen, here, absent', [
  ('tpu', False, True), ('tpu', True, False), ('tpu,cpu', False, False), ('', False, False)])
def test_a_tpu_is_not_searched_for_where_there_is_none(chosen, here, absent, bare):
  bare.setenv('JAX_PLATFORMS', chosen)
  bare.setattr(backend, 'has_tpu', lambda: here)
  assert backend.is_only_absent_tpu() == absent


@pytest.mark.parametrize('path, text, found', [
  ('dev/accel0', '', True), ('dev/vfio/0', '', True), ('dev/vfio/vfio', '', False), ('dev/accel/accel0', '', False),
  ('sys/bus/pci/devices/0000:00:04.0', '0x1ae0 0x120000', True),   # a TPU
  ('sys/bus/pci/devices/0000:00:04.0', '0x1ae0 0x020000', False),  # the network card of a virtual machine of Google's
  ('sys/bus/pci/devices/0000:00:04.0', '0x10de 0x030200', False)])
def test_a_tpu_is_found_by_its_device_file_or_its_vendor(path, text, found, tmp_path):
  path = tmp_path / path
  if text:
    path.mkdir(parents=True)
    for name, value in zip(('vendor', 'class'), text.split(), strict=True):
      (path / name).write_text(f'{value}\n')
  else:
    path.parent.mkdir(parents=True)
    path.touch()
  assert backend.has_tpu(tmp_path) == found


@pytest.mark.parametrize('chosen, libtpu, expected', [('', True, 'cpu'), ('', False, ''), ('tpu', True, 'tpu')])
def test_libtpu_is_skipped_only_where_it_is_installed_and_the_user_has_not_chosen(chosen, libtpu, expected, bare):
  bare.setenv('JAX_PLATFORMS', chosen)
  bare.setattr(backend.importlib.util, 'find_spec', lambda name: libtpu or None)
  backend.skip_libtpu()
  assert os.environ['JAX_PLATFORMS'] == expected


@pytest.mark.skipif(backend.has_gpu_plugin() or backend.has_tpu(), reason='an accelerator is here')
def test_a_run_without_a_tpu_does_not_load_libtpu(tmp_path):
  """jax by itself does wherever it is installed, and without a TPU that fills the screen. When it is imported, jax asks
  for the path of the library; when it starts its backends, it asks again and loads it."""
  (tmp_path / 'libtpu').mkdir()
  (tmp_path / 'libtpu' / '__init__.py').write_text(
    'def get_library_path():\n  print("which library?")\n  return "/nowhere/libtpu.so"\n')
  config = tmp_path / 'config.py'  # starts the backends, then ends the run
  config.write_text('import jax\ndef get_config():\n  raise ValueError(f"runs on a {jax.devices()[0].platform}")\n')
  environment = {name: value for name, value in os.environ.items()
                 if name != 'JAX_PLATFORMS' and not name.startswith('TPU_')}  # jax sets some where libtpu is installed
  environment['PYTHONPATH'] = os.pathsep.join([str(tmp_path), str(ROOT)])

  def count_questions(*command):
    done = subprocess.run([sys.executable, *command], env=environment, cwd=tmp_path, text=True, capture_output=True)
    assert 'runs on a cpu' in done.stdout + done.stderr
    return done.stdout.count('which library?')

  assert count_questions('-c', 'import jax; print("runs on a", jax.devices()[0].platform)') == 2
  assert count_questions('-m', 'mtpret_jax.main', f'--config={config}') == 1


@pytest.mark.parametrize('chosen, error, words', [
  ('cuda', AssertionError(), "JAX_PLATFORMS='cuda', but jax finds no such device here (no such device, or no plugin"),
  ('typo', RuntimeError("Unable to initialize\nbackend 'typo'"), "(Unable to initialize backend 'typo')"),
  ('', RuntimeError('no device'), 'jax cannot start its devices (no device): set JAX_PLATFORMS=cpu')])
def test_a_platform_that_is_not_here_is_named_with_what_to_type(chosen, error, words, bare):
  bare.setenv('JAX_PLATFORMS', chosen)
  line = backend.explain_failure(error)
  assert words in line and '\n' not in line
