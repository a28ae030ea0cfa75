"""Stands in for training in the tests of how the runs of the table are made: it only writes what a finished run has."""

import contextlib
import pathlib

from mtpret_jax.runtime.logging import save_config
from mtpret_jax.stages.table import run
from mtpret_jax.stages.table.cells import make_cells, make_pretraining
from mtpret_jax.stages.table.jobs import make_jobs


class Training:
  """Stands in for the training of a stage: writes what a finished run has. `trained`: the workdirs, in order."""

  def __init__(self, root, errors=None):
    self.root, self.errors, self.trained = root, errors or {}, []

  def __call__(self, config):
    workdir = pathlib.Path(config.workdir)
    name = str(workdir.relative_to(self.root))
    self.trained.append(name)
    with contextlib.suppress(StopIteration):
      raise next(error for part, error in self.errors.items() if part in name)
    finish(config)


def finish(config):
  """Writes the files of a finished run of any stage."""
  workdir = pathlib.Path(config.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  save_config(workdir, config)
  for folder in ('checkpoints', 'best'):
    (workdir / folder).mkdir(parents=True, exist_ok=True)
  results = 'results.json' if config.objective == 'moco' else 'scores.json' if len(config.tasks) == 1 else 'rounds.json'
  (workdir / results).write_text('{}')


def run_table(config, training):
  """Runs the table; returns the number of cells of each report."""
  reported = []
  run.run(config, training, lambda config, cells: reported.append(len(cells)))
  return reported


def make_queue(config):
  cells = make_cells(config)
  return run.Queue(make_jobs(cells, make_pretraining(config)), config.keep_checkpoints)
