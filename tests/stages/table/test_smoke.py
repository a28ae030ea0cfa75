"""`configs/table.py:smoke`, run by two processes that share a workdir; one is killed and started again."""

import collections
import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from mtpret_jax.evaluation import test_scores
from mtpret_jax.stages.table.cells import make_cells, make_pretraining
from tests.support import small_runs
from tests.support.paths import ROOT

LIMIT = 400  # s; a run that waits this long has a defect


def start(folder, name, flags):
  """The command in a process of its own, which logs to `folder/name`."""
  # One device: the batches do not divide into groups for the eight of the tests.
  environment = {**os.environ, 'XLA_FLAGS': '', 'TQDM_DISABLE': '1'}
  with open(folder / name, 'w') as log:
    return subprocess.Popen([sys.executable, '-m', 'tests.support.small_runs',
                             '--config=tests/support/small_runs.py:table', *flags],
                            stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)


def count_finished(workdir):
  return len(list(workdir.glob('cells/*/*/*/*/scores.json')))


def find_titles(folder, pattern):
  """How often each run has a line with this beginning, over all logs."""
  text = '\n'.join(path.read_text() for path in sorted(folder.glob('log*')))
  return collections.Counter(re.findall(rf'^[\d:]+ {pattern}((?:cell|pretraining) .*)', text, re.M))


@pytest.fixture(scope='module')
def shared(tmp_path_factory, archives, prepared, one_block):
  """(folder, config): the table was run to its end; its logs are in the folder."""
  folder = tmp_path_factory.mktemp('table')
  fields = {'workdir': str(folder / 'run'), 'data.archives': str(archives), 'data.dir': str(prepared)}
  flags = [f'--config.{field}={value}' for field, value in fields.items()]
  processes = [start(folder, 'log1', flags), start(folder, 'log2', flags)]
  try:
    deadline = time.monotonic() + LIMIT
    while count_finished(folder / 'run') < 3:
      assert time.monotonic() < deadline and processes[0].poll() is None, (folder / 'log1').read_text()
      time.sleep(0.1)
    processes[0].send_signal(signal.SIGKILL)
    processes.append(start(folder, 'log3', flags))
    for name, process in zip(('log2', 'log3'), processes[1:], strict=True):
      assert process.wait(LIMIT) == 0, (folder / name).read_text()
  finally:
    for process in processes:
      process.kill()
      process.wait()
  config = small_runs.make_table()
  config.update_from_flattened_dict(fields)
  return folder, config


def test_all_cells_of_each_kind_of_initialisation_are_finished(shared):
  _, config = shared
  cells = make_cells(config)
  assert {cell.init for cell in cells} == set(config.inits) - {'imagenet'} and len(cells) == 6
  for cell in cells:
    assert test_scores.is_finished(cell.config)
    assert {path.name for path in pathlib.Path(cell.config.workdir).iterdir()} >= {
      'config.json', 'scores.json', 'predictions_pneumonia.csv', 'metrics.jsonl'}
    assert not pathlib.Path(cell.config.workdir, 'checkpoints').exists()
  assert all(test_scores.is_finished(stage) for stage in make_pretraining(config).values())


def test_the_report_has_all_cells(shared):
  folder, config = shared
  with open(folder / 'run' / 'cells.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert {(row['task'], row['init'], float(row['fraction']), int(row['seed'])) for row in rows} == {
    (cell.task, cell.init, cell.fraction, cell.seed) for cell in make_cells(config)}
  assert all(int(row['images']) > 0 and row['steps'] == '4' and row['commit'] for row in rows)
  assert 'missing' not in (folder / 'run' / 'table.txt').read_text()


def test_no_run_is_made_twice_and_only_that_of_the_killed_process_is_resumed(shared):
  folder, config = shared
  finished, started = find_titles(folder, 'finished '), find_titles(folder, '')
  runs = len(make_cells(config)) + len(make_pretraining(config))
  assert set(finished.values()) == {1} and len(started) == runs
  assert len(finished) >= runs - 1  # a process may be killed between its scores and its line
  assert started.total() <= runs + 1
  assert re.search(r'^[\d:]+ finished (cell|pretraining)', (folder / 'log2').read_text(), re.M)
