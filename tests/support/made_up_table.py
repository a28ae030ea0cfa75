"""Finished cells of a table with made-up predictions, for the tests of its report."""

import dataclasses
import json
import pathlib

import numpy as np
from ml_collections import ConfigDict

from configs import finetune
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.test_scores import predictions_path
from tests.support.scored import ABOUT, METRICS, TASKS, make_rows

RESAMPLES = 20
NOISE = {'scratch': 1.0, 'md_moco': 0.7, 'mtpret': 0.5}  # of the predictions: less is better


@dataclasses.dataclass(frozen=True)
class Cell:
  task: str
  init: str
  fraction: float
  seed: int
  config: ConfigDict


def make_cells(workdir, tasks=('two', 'value'), inits=('scratch', 'md_moco', 'mtpret'), fractions=(0.01, 1.0),
               seeds=(1, 2)):
  """Cells in the order of the table's command; none is finished."""
  return [make_cell(pathlib.Path(workdir), task, init, fraction, seed)
          for seed in seeds for fraction in fractions for init in inits for task in tasks]


def make_cell(workdir, task, init, fraction, seed):
  config = finetune.get_config('smoke,pneumonia')
  config.update(workdir=str(workdir / f'{task}_{init}_{fraction:g}_{seed}'), seed=seed, init=init)
  config.init_from = str(workdir / f'pretraining_{init}_{fraction:g}_{seed}') if init != 'scratch' else ''
  config.data.fraction = fraction
  config.tasks = ConfigDict({task: config.tasks.pneumonia})
  return Cell(task, init, fraction, seed, config)


def make_config(workdir, tasks=('two', 'value')):
  return ConfigDict({'workdir': str(workdir), 'tasks': tuple(tasks), 'resamples': RESAMPLES})


def finish_cell(cell, images=40):
  """Writes the predictions and scores of a cell, as stage 3 does."""
  workdir, kind, about = pathlib.Path(cell.config.workdir), METRICS[TASKS[cell.task]], ABOUT[cell.task]
  workdir.mkdir(parents=True)
  rows = make_rows(cell.task, images)
  noise = NOISE[cell.init] * (0.5 + 0.5 / (1 + cell.fraction))
  rng = np.random.default_rng((cell.seed, round(100 * cell.fraction), len(cell.init)))
  if TASKS[cell.task] == 'regression':
    rows['predicted'] = rows['value'] + 30 * noise * rng.normal(size=(images, 1))
  else:
    score = 1 / (1 + np.exp(2 * noise * rng.normal(size=images) - 2 * (rows['present'][:, 1] - 0.5)))
    rows['score'] = np.stack([1 - score, score], axis=1)
  result = metrics.score(kind, about, rows, resamples=RESAMPLES)
  metrics.write_predictions(predictions_path(workdir, cell.task), kind, about, rows)
  (workdir / 'config.json').write_text(json.dumps({'config': cell.config.to_dict()}))
  (workdir / 'scores.json').write_text(json.dumps({
    'tasks': {cell.task: result}, 'about': {cell.task: about}, 'training_images': {cell.task: 30}, 'steps': 100,
    'versions': {'commit': '0123456789ab'}}))
