"""What `--dry_run` says about a table."""

import json
import pathlib

import pytest

from configs import table
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.stages.table.cells import make_cells, make_pretraining
from mtpret_jax.stages.table.plan import describe_table
from tests.support.changed import change
from tests.support.table_runs import finish


@pytest.fixture
def config(tmp_path):
  return change(table.get_config('smoke'), workdir=str(tmp_path / 'run'), inits=('scratch', 'md_moco', 'mtpret'),
                fractions=(0.5, 1.0), **{'data.dir': str(tmp_path / 'data')})


def find_row(lines, title):
  line, = (line for line in lines if line.strip().startswith(title))
  return line.split(title)[1].split(maxsplit=4)


def test_runs_steps_and_images_that_are_left_are_counted(config):
  lines = describe_table(config)
  assert lines[0] == f'6 cells of 1 task, 3 pretraining runs, in {config.workdir}'
  first, second, third = config.stages.pretrain, config.stages.continual, config.stages.finetune.pneumonia
  assert find_row(lines, 'stage 1') == ['1', '0', f'{first.steps}', f'{first.steps * first.batch}', '?']
  visits = [second.rounds * task.steps for task in second.tasks.values()]
  images = sum(steps * task.batch for steps, task in zip(visits, second.tasks.values(), strict=True))
  assert find_row(lines, 'stage 2') == ['2', '0', f'{2 * sum(visits)}', f'{2 * images}', '?']
  task = third.tasks.pneumonia
  assert find_row(lines, 'stage 3, pneumonia') == ['6', '0', f'{6 * task.steps}', f'{6 * task.steps * task.batch}', '?']
  assert lines[-1].strip().startswith('disk, roughly: ')
  assert not pathlib.Path(config.data.dir).exists()


def test_hours_follow_from_a_given_speed_or_from_that_of_finished_runs(config):
  stage = make_pretraining(config)['md_moco']
  finish(stage)
  cell = make_cells(config)[0].config
  finish(cell)
  pathlib.Path(cell.workdir, 'metrics.jsonl').write_text(json.dumps(
    {'step': 4, 'task': 'pneumonia', 'images_per_second': 0.5}) + '\n')
  config.images_per_second.continual = 0.25
  lines = describe_table(config)
  task = config.stages.finetune.pneumonia.tasks.pneumonia
  assert find_row(lines, 'stage 1')[1:] == ['1', '0', '0', '0']
  assert find_row(lines, 'stage 2')[-1].endswith(' at 0.25 images/s (given)')
  assert find_row(lines, 'stage 3, pneumonia')[1:2] == ['1']
  assert find_row(lines, 'stage 3, pneumonia')[-1] == (
    f'{5 * task.steps * task.batch / 0.5 / 3600:.2g} at 0.5 images/s (measured)')
  assert not [line for line in lines if 'hours are known when' in line]
  config.images_per_second.continual = 0.0
  line, = (line for line in describe_table(config) if 'hours are known when' in line)
  assert line.endswith('or with --config.images_per_second.continual=N')


def test_a_table_that_would_overwrite_cells_is_refused(config):
  finish(make_cells(change(config, **{'stages.finetune.pneumonia.trunk_scale': 0.5}))[0].config)
  pathlib.Path(config.workdir, 'cells/pneumonia/scratch/0.5/1/checkpoints').rmdir()
  with pytest.raises(ConfigError, match='1 cell finished with another config would be trained again'):
    describe_table(config)
