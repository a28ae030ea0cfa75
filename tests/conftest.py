"""Eight fake CPU devices for every test; broadcasting over ranks is an error; phantom archives and a
small run on them once per test run."""

import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'

import jax
import pytest

from configs import continual, tasks
from mtpret_jax import stages
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from tfds_builders import build, phantoms

jax.config.update('jax_numpy_rank_promotion', 'raise')
# Most of the suite's time is XLA's; a step that was compiled in one test is read back in the next.
COMPILED = tempfile.TemporaryDirectory(prefix='compiled-')  # goes when the tests end
jax.config.update('jax_compilation_cache_dir', COMPILED.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)

PHANTOMS = dict(images=24, size=96, seed=0)


@pytest.fixture(scope='session')
def archives(tmp_path_factory):
  """Folder with a miniature archive of each dataset, 24 images of 96 pixels, each in its public layout."""
  folder = tmp_path_factory.mktemp('archives')
  for name in build.NAMES:
    phantoms.write(name, folder, **PHANTOMS)
  return folder


@pytest.fixture(scope='session')
def prepared(archives, tmp_path_factory):
  """A data_dir with all datasets prepared from `archives` at size 256."""
  data_dir = tmp_path_factory.mktemp('prepared')
  for name in build.NAMES:
    build.prepare(name, archives, data_dir, size='256')
  return data_dir


@pytest.fixture(scope='session')
def one_block():
  """A trunk of one block has this name while tests run."""
  LAYERS['one_block'] = (BasicBlock, (1, 0, 0, 0))
  yield
  del LAYERS['one_block']


@pytest.fixture(scope='session')
def two_tasks(prepared, one_block):
  """Stage 2 in twelve steps: two rounds of three steps on each of two tasks, a trunk of one block, eight devices."""
  config = continual.get_config('smoke')
  config.update(trunk='one_block', rounds=2, save_every=1, log_every=1, resamples=4)
  config.tasks = tasks.embedded(['bone_age', 'pneumonia'], steps=3)
  for task_config in config.tasks.values():
    task_config.update(size=36, batch=16, group=2)
    task_config.augment.size = 32
  config.data.update(dir=str(prepared), datasets=('rsna_bone_age', 'kermany_pneumonia'))
  return config.lock()


@pytest.fixture(scope='session')
def two_tasks_run(two_tasks, tmp_path_factory):
  """(workdir, last state) of that run."""
  workdir = tmp_path_factory.mktemp('two_tasks')
  return workdir, jax.device_get(stages.train_stage(two_tasks, workdir))
