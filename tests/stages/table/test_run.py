"""How the cells run: each once, after what it needs, beside other processes, and past those that fail. Nothing is
trained here; tests/stages/table/test_smoke.py does that."""

import contextlib
import io
import json
import logging
import os
import pathlib

import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import test_scores
from mtpret_jax.runtime import workdir_lock
from mtpret_jax.runtime.loss_guard import Diverged
from mtpret_jax.stages.table import run
from mtpret_jax.stages.table.cells import make_cells, make_pretraining
from tests.support.changed import change
from tests.support.table_runs import Training, finish, make_queue, run_table


def test_every_run_is_made_once_and_after_those_that_it_needs(config, tmp_path, caplog):
  caplog.set_level(logging.INFO, 'mtpret_jax')
  training = Training(tmp_path)
  assert run_table(config, training) == [8]
  assert len(training.trained) == len(set(training.trained)) == 8 + 4
  made = {str(pathlib.Path(cell.config.workdir).relative_to(tmp_path)): cell for cell in make_cells(config)}
  assert set(made) < set(training.trained)
  for place, name in enumerate(training.trained):
    needs = [f'pretraining/{need}' for need in (made[name].needs if name in made else ())]
    assert set(needs) <= set(training.trained[:place])
  assert 'finished cell 8 of 8: pneumonia, mtpret, 100 % of the labels, seed 1' in caplog.messages
  again = Training(tmp_path)
  assert run_table(config, again) == [8] and again.trained == []
  larger = Training(tmp_path)  # a table with another initialisation makes only its cells
  run.run(change(config, inits=(*config.inits, 'joint')), larger, lambda config, cells: None)
  assert sorted(larger.trained) == [f'{part}/1' for part in (
    'cells/pneumonia/joint/0.5', 'cells/pneumonia/joint/1', 'pretraining/joint/0.5', 'pretraining/joint/1')]


def test_the_bar_names_the_run_under_way(config, tmp_path, monkeypatch):
  shown, make_bar = io.StringIO(), run.tqdm
  visible = {'file': shown, 'disable': False, 'ncols': 200, 'dynamic_ncols': False}
  monkeypatch.setattr(run, 'tqdm', lambda **options: make_bar(**options | visible))
  run_table(config, Training(tmp_path))
  assert ', pretraining md_moco]' in shown.getvalue() and ', cell 1 of ' in shown.getvalue()


@pytest.mark.parametrize('keep', [False, True])
def test_finished_cells_drop_their_checkpoints_and_pretraining_keeps_them(keep, config, tmp_path):
  run_table(change(config, keep_checkpoints=keep), Training(tmp_path))
  for cell in make_cells(config):
    assert {path.name for path in pathlib.Path(cell.config.workdir).iterdir() if path.is_dir()} == (
      {'checkpoints', 'best'} if keep else set())
  assert (tmp_path / 'pretraining/md_moco/checkpoints').is_dir()


@pytest.mark.parametrize('error', [ConfigError('no such thing'), Diverged('loss is nan')])
def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(error, config, tmp_path):
  training = Training(tmp_path, {'pretraining/mtpret/0.5': error, 'cells/pneumonia/scratch/1': error})
  reported = []
  with pytest.raises(run.CellsFailed) as failed:
    run.run(config, training, lambda config, cells: reported.append(len(cells)))
  assert reported == [8]
  lines = str(failed.value).splitlines()
  assert lines[0].startswith('3 of 12 runs failed') and len(lines) == 4
  assert any(line.startswith('pretraining mtpret/0.5/1: ') and str(error) in line for line in lines)
  assert any('mtpret, 50 % of the labels, seed 1: needs pretraining mtpret/0.5/1, which failed' in line
             for line in lines)
  assert len(training.trained) == 11  # all but the cell of the failed pretraining
  assert str(error) in (tmp_path / 'cells/pneumonia/scratch/1/1/failed.txt').read_text()
  again = Training(tmp_path)
  assert run_table(config, again) == [8]
  assert sorted(again.trained) == ['cells/pneumonia/mtpret/0.5/1', 'cells/pneumonia/scratch/1/1',
                                   'pretraining/mtpret/0.5/1']
  assert not list(tmp_path.rglob('failed.txt'))


def test_an_unknown_error_stops_the_table(config, tmp_path):
  with pytest.raises(ZeroDivisionError):
    run_table(config, Training(tmp_path, {'md_moco': ZeroDivisionError()}))


def test_two_processes_never_take_the_same_run(config, take):
  one, other = make_queue(config), make_queue(config)
  first = [take(one) for _ in range(2)]
  second = [take(other) for _ in range(2)]
  assert len(set(first + second) - {''}) == 4
  assert 'moco/kermany_pneumonia' in first + second


def test_what_waits_for_the_run_of_another_process_comes_later(config, take):
  queue, pretraining = make_queue(config), make_pretraining(config)
  taken = []
  with contextlib.ExitStack() as other:
    for name in ('md_moco', 'moco/kermany_pneumonia'):
      pathlib.Path(pretraining[name].workdir).mkdir(parents=True)
      other.enter_context(workdir_lock.lock(pretraining[name].workdir))
    while True:
      with contextlib.ExitStack() as stack:
        name = queue.take(stack)
        if not name:
          break
        taken.append(name)
        finish(queue.jobs[name].config)
        queue.finish(name, '')
    assert name == '' and len(taken) == 2 and all('scratch' in name for name in taken)
    finish(pretraining['md_moco'])
    assert 'md_moco' in queue.jobs[take(queue)].config.workdir  # a cell; the other process has finished its run
    assert 'md_moco' in queue.done and 'moco/kermany_pneumonia' not in queue.done


def test_a_run_that_was_finished_while_its_lock_was_awaited_is_not_made_again(config, take, monkeypatch):
  queue = make_queue(config)
  finished = test_scores.is_finished
  looks = []

  def look(stage):  # the other process finishes between the look and the lock
    looks.append(stage.workdir)
    if len(looks) == 1:
      pathlib.Path(stage.workdir).mkdir(parents=True)
      before = finished(stage)
      finish(stage)
      return before
    return finished(stage)
  monkeypatch.setattr(test_scores, 'is_finished', look)
  name = take(queue)
  assert looks[0] == looks[1] != queue.jobs[name].config.workdir and looks[0] in queue.done


def test_a_failure_in_another_process_counts_and_an_earlier_one_does_not(config, take):
  config = change(config, inits=('scratch',))
  jobs = make_queue(config).jobs
  names = list(jobs)
  for name in names:
    pathlib.Path(jobs[name].config.workdir).mkdir(parents=True)
  path = pathlib.Path(jobs[names[0]].config.workdir, run.FAILED)
  path.write_text('yesterday: diverged')
  queue = make_queue(config)
  pathlib.Path(jobs[names[1]].config.workdir, run.FAILED).write_text('now: diverged')
  assert take(queue) == names[0] and not path.exists()
  assert take(queue) == ''  # the first one is held
  assert queue.failed == {names[1]: 'now: diverged'}


def test_the_checkpoints_of_a_cell_stay_while_the_process_that_finished_it_writes_its_report(config, take):
  queue = make_queue(change(config, inits=('scratch',)))
  first, second = (job.config for job in queue.jobs.values())
  for stage in (first, second):
    finish(stage)
  with workdir_lock.lock(first.workdir):
    assert take(queue) is None
  assert (pathlib.Path(first.workdir) / 'checkpoints').is_dir()
  assert not (pathlib.Path(second.workdir) / 'checkpoints').exists()


def test_a_cell_that_a_process_with_another_config_finishes_is_not_overwritten(config, take):
  config = change(config, inits=('scratch',))
  queue, other = make_queue(config), make_queue(change(config, **{'stages.finetune.pneumonia.trunk_scale': 0.5}))
  name, second = other.jobs
  finish(other.jobs[name].config)
  other.finish(name, '')  # without checkpoints from now on
  assert take(queue) == second
  assert queue.failed == {name: 'another process has finished it with another config since this one started: give '
                                'them the same flags and the same version'}


def test_the_log_says_which_runs_of_other_processes_are_awaited(config, caplog, monkeypatch):
  config = change(config, inits=('scratch',), fractions=(1.0,))
  queue = make_queue(config)
  stage, = (job.config for job in queue.jobs.values())
  caplog.set_level(logging.INFO, 'mtpret_jax')
  with contextlib.ExitStack() as other:
    pathlib.Path(stage.workdir).mkdir(parents=True)
    other.enter_context(workdir_lock.lock(stage.workdir))
    polls = []

    def sleep(seconds):
      polls.append(seconds)
      if len(polls) == 3:  # the other process ends
        finish(stage)
        other.close()
    monkeypatch.setattr(run.time, 'sleep', sleep)
    run.run_jobs(queue, None)
  awaited, = (line for line in caplog.messages if 'waiting' in line)
  assert awaited.startswith(f'nothing else can run now: waiting for cell 1 of 1: pneumonia, scratch, 100 % of the '
                            f'labels, seed 1 (process {os.getpid()} on ')


def test_compiled_steps_are_dropped_when_memory_has_grown_much(monkeypatch):
  cleared = []
  monkeypatch.setattr(run.jax, 'clear_caches', lambda: cleared.append(True))
  start, much = run.read_memory(), 3 * 10**9
  assert start > 10**7
  memory = 0
  for now, drops in ((1, 0), (2, 0), (much, 1), (much, 1), (2 * much, 2)):
    monkeypatch.setattr(run, 'read_memory', lambda now=now: now)
    memory = run.limit_memory(memory)
    assert len(cleared) == drops


def test_the_saved_config_of_a_cell_says_which_it_is(config, tmp_path):
  run_table(config, Training(tmp_path))
  cell = make_cells(config)[0]
  saved = json.loads((pathlib.Path(cell.config.workdir) / 'config.json').read_text())
  assert saved['config']['data']['fraction_seed'] == cell.seed and saved['config']['init'] == cell.init
  assert saved['versions']['commit']
