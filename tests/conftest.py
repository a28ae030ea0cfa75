"""The test process and the fixtures that several folders use.

Every test sees eight CPU devices, and broadcasting between arrays of different rank is an error.

`python -m pytest` runs two workers (pytest-xdist, options in pyproject.toml). All tests of a file then run on one
worker, so module fixtures are made once, and the longest files start first. The workers share what is slow to make
through two folders: the programs that XLA has compiled, and the data and runs of `make_once`.
"""

import fcntl
import os
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
# Most of the suite's time is XLA's. What one test has compiled is read back by every later test, by the other workers
# and by the command lines that tests start: they inherit this variable. JAX writes an entry to a file of its own and
# then renames it, so processes may write at the same time.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  COMPILED = tempfile.TemporaryDirectory(prefix='compiled-')  # removed when the process that made it ends
  os.environ['JAX_COMPILATION_CACHE_DIR'] = COMPILED.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
# LLVM optimises little, and compiles in half the time; XLA's own passes are those of users. Command lines inherit this
# too. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest` compiles as users do.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import pytest

from mtpret_jax import cpu, stages
from mtpret_jax.models.resnet import LAYERS
from tests.support import plain_reports, small_runs
from tfds_builders import build, phantoms

jax.config.update('jax_numpy_rank_promotion', 'raise')
cpu.install()  # as mtpret_jax.main does on a CPU

# The files that take longest. They start first, so that the workers end together.
LONGEST = ('benchmarks/test_hosts.py', 'objectives/test_moco.py', 'objectives/test_multitask.py', 'test_recipe.py',
           'stages/table/test_smoke.py', 'runtime/test_sharding.py', 'test_train.py', 'benchmarks/test_reliability.py',
           'test_papers_recipes.py', 'runtime/test_distributed.py', 'evaluation/test_test_scores.py',
           'docs/test_commands.py')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """The longest files first. With --no-loadscope-reorder, pytest-xdist hands out the files in this order."""
  folder = pathlib.Path(__file__).parent
  rank = {folder / name: number for number, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.path, len(rank)))  # stable: the others keep their order


@pytest.fixture(scope='session')
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[pathlib.Path], Any]], pathlib.Path]:
  """make_once(name, make) -> a folder that `make(folder)` has filled, once for all workers of this test run.

  What `make` returns is pickled beside it, see `read_result`. Tests must not change the folder."""
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent  # every worker has a folder of its own in this one

  def make_folder(name: str, make: Callable[[pathlib.Path], Any]) -> pathlib.Path:
    folder, result = root / f'shared_{name}', root / f'shared_{name}.pickle'
    with open(root / f'shared_{name}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # the other worker waits until the folder is whole
      if not result.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        result.write_bytes(pickle.dumps(make(folder)))
    return folder
  return make_folder


def read_result(folder: pathlib.Path) -> Any:
  """What the function that filled a folder of `make_once` has returned."""
  return pickle.loads(folder.with_name(f'{folder.name}.pickle').read_bytes())


@pytest.fixture(scope='session')
def archives(make_once) -> pathlib.Path:
  """Folder with a miniature archive of each dataset, 24 images of 96 pixels, each in its public layout."""
  def make(folder):
    for name in build.NAMES:
      phantoms.write(name, folder, **small_runs.PHANTOMS)
  return make_once('archives', make)


@pytest.fixture(scope='session')
def prepared(make_once, archives) -> pathlib.Path:
  """A data_dir with all datasets prepared from `archives` at size 256."""
  def make(folder):
    for name in build.NAMES:
      build.prepare(name, archives, folder, size='256')
  return make_once('prepared', make)


@pytest.fixture(scope='session')
def one_block() -> Iterator[None]:
  """Configs may have the trunk of one block."""
  small_runs.add_trunk()
  yield
  del LAYERS[small_runs.TRUNK]


@pytest.fixture(scope='session', autouse=True)
def no_pictures() -> Iterator[None]:
  """Runs draw nothing, because that takes half of their time."""
  with plain_reports.plain():
    yield


@pytest.fixture(scope='module')
def real_reports() -> Iterator[None]:
  """The runs of a file draw. tests/report uses it for all of its files."""
  with plain_reports.real():
    yield


@pytest.fixture(scope='session')
def two_tasks(prepared, one_block):
  """Stage 2 in twelve steps: two rounds of three steps on each of two tasks, a trunk of one block, eight devices."""
  config = small_runs.make_continual(steps=3)
  config.save_every = 1
  config.data.dir = str(prepared)
  return config.lock()


@pytest.fixture(scope='session')
def two_tasks_run(two_tasks, make_once, tmp_path_factory):
  """(workdir, last state) of that run. Each worker has its own copy of the workdir."""
  def make(folder):
    return jax.device_get(stages.train_stage(two_tasks, folder))
  folder = make_once('two_tasks', make)
  workdir = tmp_path_factory.mktemp('two_tasks') / 'run'
  shutil.copytree(folder, workdir)
  return workdir, read_result(folder)
