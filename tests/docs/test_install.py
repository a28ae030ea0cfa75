"""The installed package works from any folder."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PACKAGED = ('configs', 'mtpret_jax', 'tfds_builders')
BUILT_FROM = ('pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE')


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """Folder of site-packages with nothing but this package, installed by pip from a copy of the files."""
  source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('target')
  for name in PACKAGED:  # pip would leave its build folder in the repository
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in BUILT_FROM:
    shutil.copy(ROOT / name, source / name)
  subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps', '--no-compile',
                  '--no-build-isolation', '--target', target, source], check=True)
  return target


def run_python(installed, folder, *arguments):
  environment = {**os.environ, 'PYTHONPATH': str(installed), 'XLA_FLAGS': ''}
  return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_command_finds_its_configs_from_an_empty_folder(installed, tmp_path):
  done = run_python(installed, tmp_path, '-m', 'mtpret_jax.main', '--config=configs/pretrain.py:smoke',
                    '--config.batch=33')
  assert done.returncode == 2 and 'batch of 33 cannot be cut into groups' in done.stderr, done.stderr


def test_the_version_is_that_of_the_package(installed, tmp_path):
  program = ('import importlib.metadata, mtpret_jax\n'
             'print(mtpret_jax.__file__, mtpret_jax.__version__, importlib.metadata.version("mtpret_jax"))')
  file, version, metadata = run_python(installed, tmp_path, '-c', program).stdout.split()
  assert file.startswith(str(installed)) and version == metadata


def test_the_data_of_builders_and_the_templates_of_the_report_are_installed(installed):
  expected = sorted(path.relative_to(ROOT) for path in (ROOT / 'tfds_builders').rglob('*')
                    if path.name in ('README.md', 'CITATIONS.bib', 'TAGS.txt'))
  expected += [path.relative_to(ROOT) for path in (ROOT / 'mtpret_jax/report/template').iterdir()]
  assert expected and [path for path in expected if not (installed / path).is_file()] == []
