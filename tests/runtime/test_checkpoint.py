"""A checkpoint loads as it was saved; a damaged one is reported, and the one before it is used."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import checkpoint, checkpoint_folder, checksums
from tests.support.changed import flip


def make_state(step):
  return {'step': jnp.int32(step), 'weights': jnp.arange(5000.0) * step}


def save_steps(workdir, steps, keep=2, retries=0):
  with checkpoint.open_checkpoints(workdir, keep, retries=retries) as checkpoints:
    for step in steps:
      checkpoint.save(checkpoints, make_state(step), step, {'seed': 0})


def resume(workdir):
  """The step that a run resumes from; 0 if there is no checkpoint."""
  with checkpoint.open_checkpoints(workdir, 2) as checkpoints:
    state = checkpoint.restore(checkpoints, make_state(0), {'seed': 0})
    np.testing.assert_array_equal(state['weights'], make_state(int(state['step']))['weights'])
    return int(state['step'])


def largest(folder):
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def test_the_newest_are_kept_each_with_its_manifest(tmp_path):
  save_steps(tmp_path, [1, 2, 3, 4])
  assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['3', '3.sha256', '4', '4.sha256']
  assert resume(tmp_path) == 4


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, caplog):
  save_steps(tmp_path, [3, 6])
  broken = largest(tmp_path / 'checkpoints/6')
  flip(broken, 12_345)
  with caplog.at_level(logging.WARNING):
    assert resume(tmp_path) == 3
  name = broken.relative_to(tmp_path / 'checkpoints/6')
  assert f'step 6 is damaged: {name} is corrupted or truncated' in caplog.text
  assert 'Using step 3 instead' in caplog.text
  assert int(checkpoint.read_state(tmp_path)[0]['step']) == 3


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_not_started_again(tmp_path):
  save_steps(tmp_path, [3, 6])
  flip(largest(tmp_path / 'checkpoints/6'), 99)
  checksums.manifest_path(tmp_path / 'checkpoints/3').unlink()
  for load in (resume, checkpoint.read_state):
    with pytest.raises(checkpoint.Damaged, match='step 6 is damaged.*step 3 is damaged: it has no manifest') as told:
      load(tmp_path)
    assert '\n' not in str(told.value)


def test_a_folder_with_right_checksums_that_is_no_checkpoint_is_refused_and_named(tmp_path):
  save_steps(tmp_path, [3])
  (tmp_path / 'checkpoints/3/_CHECKPOINT_METADATA').write_text('{"custom_metadata": []}')
  checksums.write_manifest(tmp_path / 'checkpoints/3')
  for load in (resume, checkpoint.read_state, checkpoint.read_fingerprint):
    with pytest.raises(checkpoint.Damaged, match='checkpoints/3 matches its checksums, but is not a checkpoint'):
      load(tmp_path)


@pytest.mark.parametrize('make', [lambda path: path.write_text('?'), os.mkfifo, lambda path: path.symlink_to(path.name),
                                  lambda path: path.symlink_to('nowhere')])
def test_something_else_in_place_of_the_checkpoints_is_refused_and_named(make, tmp_path):
  make(tmp_path / 'checkpoints')
  with pytest.raises(ConfigError, match='/checkpoints cannot be created as a folder .*: remove the file in its place'):
    save_steps(tmp_path, [3])


def test_a_damaged_step_is_replaced_when_the_run_reaches_it_again(tmp_path):
  save_steps(tmp_path, [3, 6])
  flip(largest(tmp_path / 'checkpoints/6'), 99)
  save_steps(tmp_path, [6])
  assert resume(tmp_path) == 6


def test_a_save_that_was_killed_before_its_manifest_is_no_checkpoint(tmp_path):
  save_steps(tmp_path, [3])
  checkpoints = tmp_path / 'checkpoints'
  checksums.manifest_path(checkpoints / '3').unlink()  # as if killed between Orbax's commit and the manifest
  (checkpoints / '3.incomplete').touch()
  (checkpoints / '5.orbax-checkpoint-tmp').mkdir()
  with pytest.raises(FileNotFoundError, match='no checkpoint'):
    checkpoint.read_state(tmp_path)
  assert list(checkpoints.iterdir()), 'reading a run removes nothing of it'
  assert resume(tmp_path) == 0
  assert not list(checkpoints.iterdir())


def test_an_interrupted_deletion_is_finished_and_not_taken_for_damage(tmp_path, caplog):
  save_steps(tmp_path, [3, 6])
  checkpoints = tmp_path / 'checkpoints'
  (checkpoints / '3.incomplete').touch()
  checksums.manifest_path(checkpoints / '3').unlink()
  largest(checkpoints / '3').unlink()
  assert resume(tmp_path) == 6 and not caplog.text
  assert sorted(path.name for path in checkpoints.iterdir()) == ['6', '6.sha256']


def test_a_finished_run_keeps_its_newest_checkpoint(tmp_path):
  checkpoint_folder.delete_finished(tmp_path / 'absent', 1)
  save_steps(tmp_path, [1, 2, 3], keep=3)
  checkpoint_folder.delete_finished(tmp_path, 2)
  assert checkpoint_folder.list_steps(tmp_path / 'checkpoints') == [3, 2]
  checkpoint_folder.delete_finished(tmp_path, 1)
  assert checkpoint_folder.list_steps(tmp_path / 'checkpoints') == [3]
  assert checkpoint_folder.find_latest(tmp_path / 'checkpoints') == 3


@pytest.mark.parametrize('keep, keep_finished, said', [(2, 1, False), (10, 10, False), (10, 1, True)])
def test_a_run_says_at_its_start_that_a_history_of_checkpoints_will_go(keep, keep_finished, said, caplog):
  caplog.set_level(logging.INFO, 'mtpret_jax')
  checkpoint_folder.announce_kept(keep, keep_finished)
  assert ('1 of 10 (--config.keep_finished=10 keeps all)' in caplog.text) == said


def test_checkpoints_of_a_finished_run_that_another_process_removes_are_no_error(tmp_path, monkeypatch, caplog):
  save_steps(tmp_path, [1, 2], keep=2)

  def list_then_remove(folder, list_steps=checkpoint_folder.list_steps):
    steps = list_steps(folder)
    shutil.rmtree(folder)
    return steps
  monkeypatch.setattr(checkpoint_folder, 'find_latest', lambda folder: 2)
  monkeypatch.setattr(checkpoint_folder, 'list_steps', list_then_remove)
  checkpoint_folder.delete_finished(tmp_path, 1)
  checkpoint_folder.delete_finished(tmp_path, 1)
  assert not caplog.text


@pytest.mark.parametrize('keep', [1, 2])
def test_the_old_checkpoint_is_deleted_only_after_the_manifest_of_the_new(keep, tmp_path, monkeypatch):
  seen = []
  write = checksums.write_manifest

  def look(folder):
    older = [step for step in checkpoint_folder.list_steps(folder.parent) if step < int(folder.name)]
    seen.append((int(folder.name), [step for step in older if not checksums.find_damage(folder.parent / str(step))]))
    write(folder)
  monkeypatch.setattr(checksums, 'write_manifest', look)
  save_steps(tmp_path, [1, 2, 3], keep)
  assert seen == [(1, []), (2, [1]), (3, [2, 1][:keep])]


def fail_writes(monkeypatch, times):
  """The next `times` manifests cannot be written."""
  write, left = checksums.write_manifest, iter(range(times))

  def write_or_fail(folder):
    if next(left, None) is not None:
      raise OSError(28, 'No space left on device')
    write(folder)
  monkeypatch.setattr(checksums, 'write_manifest', write_or_fail)


def test_a_failed_save_is_reported_and_repeated(tmp_path, monkeypatch, caplog):
  save_steps(tmp_path, [1])
  fail_writes(monkeypatch, times=2)
  pauses = []
  monkeypatch.setattr(checkpoint.time, 'sleep', pauses.append)
  save_steps(tmp_path, [2, 3], retries=3)
  assert pauses == [1, 5] and resume(tmp_path) == 3
  assert 'could not be saved' in caplog.text and 'No space left' in caplog.text and 'step 1 in' in caplog.text


def test_a_save_that_keeps_failing_ends_the_run_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
  save_steps(tmp_path, [1], keep=1)
  monkeypatch.setattr(checkpoint.time, 'sleep', lambda seconds: None)
  with monkeypatch.context() as patch, pytest.raises(checkpoint.SaveFailed, match='No space left.*is step 1 in'):
    fail_writes(patch, times=100)
    save_steps(tmp_path, [2, 3], keep=1, retries=2)
  assert resume(tmp_path) == 1


FULL_DISK = '''
  import sys
  from mtpret_jax.runtime import checkpoint
  from tests.runtime import test_checkpoint as test
  import resource, time
  time.sleep = lambda seconds: None
  test.save_steps(sys.argv[1], [1], keep=1)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
  try:
    test.save_steps(sys.argv[1], [2], keep=1, retries=1)
  except checkpoint.SaveFailed as error:
    print('told:', error)
  resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
  print('resumed from', test.resume(sys.argv[1]))
'''


@pytest.mark.skipif(not hasattr(resource, 'RLIMIT_FSIZE'), reason='no limits on files here')
def test_a_full_disk_ends_the_run_with_one_line_and_leaves_the_checkpoint_before(tmp_path):
  program = subprocess.run([sys.executable, '-c', textwrap.dedent(FULL_DISK), str(tmp_path)], capture_output=True,
                           text=True, check=True)
  told, resumed = program.stdout.splitlines()
  assert 'File too large' in told and 'step 1 in' in told and resumed == 'resumed from 1'
  assert 'Traceback' not in program.stderr


def test_an_interrupt_that_orbax_hides_in_its_own_error_stays_an_interrupt(tmp_path):
  with pytest.raises(KeyboardInterrupt), checkpoint.explain_errors(tmp_path):
    try:
      raise KeyboardInterrupt
    except BaseException as error:  # as orbax/checkpoint/experimental/v1/_src/layout/orbax_layout.py
      raise KeyError('no handler') from error
  with pytest.raises(checkpoint.Damaged, match='KeyError'), checkpoint.explain_errors(tmp_path):
    raise KeyError('no handler')
