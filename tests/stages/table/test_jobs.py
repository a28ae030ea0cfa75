"""Which finished runs belong to a table, and that no config overwrites the scores of another."""

import pathlib
import shutil

import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import test_scores
from mtpret_jax.stages.table.jobs import check_finished, has_older_start, record_start
from tests.support.changed import change
from tests.support.table_runs import Training, finish, make_queue, run_table


def test_runs_of_another_pretraining_are_not_mixed_into_the_table(config, tmp_path):
  run_table(config, Training(tmp_path))
  shutil.rmtree(tmp_path / 'pretraining/md_moco')
  config.stages.pretrain.steps += 1
  refused = '{} finished runs? started from pretraining that is not finished with this config, such as .*/{} from '
  with pytest.raises(ConfigError, match=refused.format(8, 'cells/pneumonia/md_moco/0.5/1')):
    run_table(config, Training(tmp_path))
  shutil.rmtree(tmp_path / 'cells')  # stage 2 also started from the earlier stage 1
  with pytest.raises(ConfigError, match=refused.format(2, 'pretraining/mtpret/0.5/1')):
    run_table(config, Training(tmp_path))


def test_pretraining_that_another_process_finishes_during_the_check_is_seen(config, monkeypatch):
  jobs = make_queue(config).jobs
  cell = next(job for job in jobs.values() if job.needs == ('md_moco',))
  for stage in (jobs['md_moco'].config, cell.config):
    finish(stage)
  looks, is_finished = [], test_scores.is_finished

  def look(stage):  # at first, the run of stage 1 is not finished
    looks.append(stage.workdir)
    return is_finished(stage) and (stage.objective == 'multitask' or looks.count(stage.workdir) > 1)
  monkeypatch.setattr(test_scores, 'is_finished', look)
  check_finished(jobs)
  assert looks.count(jobs['md_moco'].config.workdir) == 2


def test_finished_cells_of_another_config_are_not_overwritten(config, tmp_path):
  run_table(config, Training(tmp_path))
  field = 'stages.finetune.pneumonia.optimiser.learning_rate'
  changed = change(config, **{field: 0.5})
  training = Training(tmp_path)
  for act in (lambda: run_table(changed, training), lambda: check_finished(make_queue(changed).jobs)):
    with pytest.raises(ConfigError, match='^8 cells finished with another config would be trained again, such as .*'
                                          r'/scratch/0.5/1 \(optimiser.learning_rate was .* and is 0.5\): use that'):
      act()
  assert not training.trained
  shutil.rmtree(tmp_path / 'cells')
  run_table(changed, training)
  assert len(training.trained) == 8 and all(name.startswith('cells/') for name in training.trained)


def test_a_cell_that_has_checkpoints_can_go_on_with_another_config(config, tmp_path):
  """Training itself then says whether it may."""
  run_table(change(config, keep_checkpoints=True), Training(tmp_path))
  training = Training(tmp_path)
  run_table(change(config, **{'stages.finetune.pneumonia.resamples': 30}), training)
  assert len(training.trained) == 8


def test_a_workdir_that_was_moved_is_finished(config, tmp_path):
  run_table(config, Training(tmp_path))
  moved = tmp_path / 'moved'
  for part in ('cells', 'pretraining'):
    shutil.move(tmp_path / part, moved / part)
  training = Training(moved)
  assert run_table(change(config, workdir=str(moved)), training) == [8] and training.trained == []


def write_checkpoint(job, step):
  folder = pathlib.Path(job.config.workdir, 'checkpoints')
  (folder / str(step)).mkdir(parents=True)
  (folder / f'{step}.sha256').write_text(f'weights of step {step}')


def test_runs_of_pretraining_that_was_extended_by_another_command_are_not_mixed_into_the_table(config):
  jobs = make_queue(config).jobs
  first, second = jobs['md_moco'], jobs['mtpret/0.5/1']
  write_checkpoint(first, 6)
  for job in jobs.values():
    finish(job.config)
    record_start(job, jobs)
  check_finished(jobs)
  write_checkpoint(first, 12)
  with pytest.raises(ConfigError, match='^4 finished runs started from pretraining that was trained again or extended '
                                        'since, such as .*/cells/pneumonia/md_moco/0.5/1 from .*/md_moco: '):
    check_finished(jobs)
  record_start(second, jobs)  # a run that resumes
  assert has_older_start(second, jobs)
  shutil.rmtree(pathlib.Path(second.config.workdir, 'checkpoints'))
  record_start(second, jobs)  # one that begins again
  assert not has_older_start(second, jobs)


def test_runs_whose_start_is_not_known_are_part_of_the_table(config):
  jobs = make_queue(config).jobs
  write_checkpoint(jobs['md_moco'], 6)
  for name, job in jobs.items():
    finish(job.config)  # as an earlier version, without a record
    if name.startswith('mtpret/0.5'):
      record_start(job, jobs)
  check_finished(jobs)
  shutil.rmtree(pathlib.Path(jobs['md_moco'].config.workdir, 'checkpoints'))  # to save space
  check_finished(jobs)
