"""Scores of a run of stage 2 or 3 on a split: `scores.json`, and in `predictions_<task>.csv` every prediction, so that
anyone can compute the scores again.

The test split is used once, at the end of stage 3, for the state with the best validation score.
"""

import dataclasses
import functools
import logging
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config import saved
from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.config.paths import check_path, check_workdir, find_read_defect
from mtpret_jax.config.schema import MULTITASK, find_mistake
from mtpret_jax.config.validate import check_choice
from mtpret_jax.data.fingerprint import flatten
from mtpret_jax.data.sources import SPLITS
from mtpret_jax.evaluation import metrics, operating_points, predict, scorable, validation
from mtpret_jax.evaluation.cases import choose_cases
from mtpret_jax.evaluation.image_numbers import count_images
from mtpret_jax.evaluation.metrics.flat_intervals import note_flat
from mtpret_jax.runtime import checkpoint, distributed, lineage
from mtpret_jax.runtime.atomic_io import write_json
from mtpret_jax.runtime.logging import list_versions
from mtpret_jax.runtime.prepare_data import PHANTOMS, list_shared_patients
from mtpret_jax.step import TrainState
from mtpret_jax.tasks import dataset, find_kind, split_checks

log = logging.getLogger(__name__)

FILE = 'scores.json'
STATES = {'best': validation.BEST, 'last': 'checkpoints'}  # name of a state in config.state -> its folder
NEVER_DEFINED = 'the score was undefined in every validation, so the last state is scored, not the best one'
EXAMPLES, CASES = 12, 8  # images with their predictions, for a picture


@dataclasses.dataclass(frozen=True)
class Scored:
  """Attributes:
    results: the content of `scores.json`; only the first process has its `tasks`.
    workdir: the folder of `scores.json`.
    examples: {task: some images with labels and predictions}, see `predict.collect_examples`.
    cases: {task: {'worst': the images with the largest errors, 'best': those with the smallest}}, like `examples`.
  """

  results: dict[str, Any]
  workdir: pathlib.Path
  examples: dict[str, list[dict[str, Any]]]
  cases: dict[str, dict[str, list[dict[str, Any]]]]


def score_best(config: ConfigDict) -> Scored:
  """Scores the state with the best validation score of a finished run on the test split."""
  workdir = pathlib.Path(config.workdir)
  best, metadata = checkpoint.read_state(workdir, validation.BEST)
  if math.isfinite(metadata['score']):
    log.info('scoring step %d, the best by validation (%.4f), on the test split', best['step'], metadata['score'])
  else:  # no validation gave a score, such as an AUC with one class only
    log.warning('%s (docs/scores.md says why it may be): scoring step %d, the last one, on the test split',
                NEVER_DEFINED, best['step'])
  validated = sum(map(len, dataset.open_tasks(config, 'validation').values()))
  if ties := validation.describe_ties(workdir, validated):
    log.info(ties)
  sources = dataset.open_tasks(config, 'train', config.data.fraction)
  training = {'training_images': {name: len(source) for name, source in sources.items()},
              'steps': max([int(best['step']), *(line['step'] for line in validation.read(workdir))])}
  state = TrainState(**best)
  predictors: dict[tuple[str, str], predict.Predictor] = {}
  points = operating_points.choose(config, state, workdir, predictors)
  return score_split(state, config, workdir, 'test', lineage.trace_lineage(config), training,
                     list_state_notes(metadata), points, predictors)


def list_state_notes(metadata: Mapping[str, Any]) -> list[str]:
  """What a reader of the scores of a best state needs to know about its choice. `metadata`: what was saved with it."""
  return [] if math.isfinite(metadata.get('score', 0.0)) else [NEVER_DEFINED]


def evaluate_run(config: ConfigDict) -> Scored:
  """Scores an earlier run on a split, see configs/evaluate.py.

  Raises:
    ConfigError: `config.run` is not a run of stage 2 or 3, it has no such state, its data is not there, its labels
      do not allow `config.flips`, or an earlier run had trained on images of its test split.
  """
  trained = read_trained_config(config.run)
  earlier = lineage.trace_lineage(trained, workdir=pathlib.Path(config.run))
  try:
    lineage.check_lineage(trained, earlier)
  except ConfigError as error:
    raise ConfigError(f'run={config.run!r} cannot be scored, it must be trained again: {error}') from error
  chosen = config.state or ('best' if len(trained.tasks) == 1 else 'last')
  check_choice('state', chosen, sorted(STATES))
  check_choice('split', config.split, SPLITS)
  finished = is_finished(trained)
  trained.resamples = config.resamples
  trained.data.dir = config.data.dir or trained.data.dir
  try:
    state, metadata = checkpoint.read_state(config.run, STATES[chosen])
  except FileNotFoundError as error:
    raise ConfigError(f'run={config.run!r} has no {chosen} state: {error}') from error
  workdir = pathlib.Path(config.workdir or pathlib.Path(config.run, config.split))
  check_workdir(workdir, checkpoints=False)
  if not finished:
    log.warning('%s is not finished: scoring its %s state, step %d', config.run, chosen, state['step'])
  flips = trained.get('flips', False)
  trained.flips = {'': flips, 'on': True, 'off': False}[config.flips]
  # The points belong to the best state and to how the run predicts.
  points = operating_points.read(config.run) if chosen == 'best' and trained.flips == flips else {}
  try:
    scorable.check_data(trained, config.run, config.split)
    return score_split(TrainState(**state), trained, workdir, config.split, earlier,
                       notes=list_state_notes(metadata) if chosen == 'best' else (), points=points)
  except FileNotFoundError as error:  # a dataset of the run is not prepared, or was moved or deleted
    raise ConfigError(f'{error}, or set --config.data.dir=<folder> to the folder that holds it') from error


def read_trained_config(run: str) -> ConfigDict:
  """The config of a run of stage 2 or 3.

  Raises:
    ConfigError: `run` is no such run, or its config.json is damaged or does not match its checkpoint.
  """
  check_path('run', run, find_read_defect)
  try:
    config = saved.read_config(run, saved.EVALUATION)
    if config['objective'] != 'multitask':
      raise ConfigError(f'its objective is {config["objective"]!r}, and only multitask runs (stages 2 and 3) have '
                        f'tasks to score')
    mistake = find_mistake(config, MULTITASK, complete=False)
    if mistake:
      raise ConfigError(f'{saved.FILE} is damaged: {mistake[0]} is {show(mistake[1])}; {saved.REMEDY}')
    try:
      saved.check_unchanged(config, checkpoint.read_fingerprint(run), run)
    except (FileNotFoundError, checkpoint.Damaged) as error:  # go on: the best state may be undamaged
      log.warning('%s in %s cannot be compared with the checkpoint of the run: %s', saved.FILE, run, error)
  except ConfigError as error:
    raise ConfigError(f'run={run!r}: {error}; set --config.run to the workdir of a run of stage 2 or 3') from error
  return saved.make_config(config)


def score_split(state: TrainState, config: ConfigDict, workdir: pathlib.Path, split: str,
                earlier: lineage.Lineage, training: Mapping[str, Any] = MappingProxyType({}),
                notes: Sequence[str] = (), points: operating_points.Points = MappingProxyType({}),
                predictors: dict[tuple[str, str], predict.Predictor] | None = None) -> Scored:
  """Predicts and scores one split, and writes `scores.json` and `predictions_<task>.csv` to `workdir`.

  Args:
    earlier: the runs that the trunk descends from.
    training: what else to write about the training of this run.
    notes: what a reader of the scores needs to know, beside patients who are in several splits.
    points: the operating points of the tasks, see `operating_points.py`.
    predictors: models that are compiled already, see `predict.score_tasks`.
  """
  predictors = {} if predictors is None else predictors
  scored = predict.score_tasks(config, state, split, predictors,
                               {name: point['temperature'] for name, point in points.items()})
  images = dict[str, dict[str, int]]()  # {task: {class: how many show it}}
  for name, (rows, result) in scored.items():
    about = dataset.describe_task(predictors[name, split].source.about, config.tasks[name])
    images[name] = count_images(about, rows)
    metrics_of = find_kind(config.tasks[name].kind).metrics
    if metrics_of.thresholds is not None and result['images']:
      result['operating_points'] = operating_points.score_task(metrics_of, about, rows, points.get(name),
                                                               config.resamples)
  results = {'data': config.data.archives or PHANTOMS, 'split': split, 'split_rule': config.data.split,
             'notes': [*notes, *list_shared_patients(config), *split_checks.note_rare(config, split, images),
                       *note_flat({name: result for name, (_, result) in scored.items()})],
             'pretraining': lineage.describe_lineage(config, earlier),
             'step': int(state.step), **training, 'tasks': {name: result for name, (_, result) in scored.items()},
             # what `metrics.read_predictions` needs, so that the scores can be computed again without the dataset
             'about': {name: dict(dataset.describe_task(predictors[name, split].source.about, task_config))
                       for name, task_config in config.tasks.items()},
             'versions': list_versions(), 'config': config.to_dict()}

  def write() -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    for name, (rows, _) in scored.items():
      task_config, source = config.tasks[name], predictors[name, split].source
      metrics.write_predictions(predictions_path(workdir, name), find_kind(task_config.kind).metrics,
                                dataset.describe_task(source.about, task_config), rows)
    write_json(workdir / FILE, results)  # last: `is_finished` takes this file as proof that the predictions are written
  distributed.run_on_first(write)
  examples, chosen = {}, distributed.run_on_first(lambda: {
    name: choose_cases(find_kind(config.tasks[name].kind).metrics, results['about'][name], rows, CASES)
    for name, (rows, _) in scored.items()})
  for name in config.tasks:  # all processes take part in every prediction
    collect = functools.partial(predict.collect_examples, config, name, split, state, predictors[name, split])
    examples[name] = collect(predict.spread_places(len(predictors[name, split].source), EXAMPLES))
    chosen[name] = {title: collect(places) for title, places in chosen[name].items()}
  return Scored(results, workdir, examples, chosen)


def predictions_path(workdir: pathlib.Path, task: str) -> pathlib.Path:
  return pathlib.Path(workdir, f'predictions_{task}.csv')


def is_finished(config: ConfigDict) -> bool:
  """Whether a run of any stage has written its results, with the same config as this one."""
  if not has_results(config):
    return False
  try:
    return not find_changes(config)
  except ConfigError as error:  # damaged: the run writes it again
    log.warning('%s', error)
    return False


def has_results(config: ConfigDict) -> bool:
  """Whether the workdir holds the results of a finished run, with whatever config."""
  results = 'results.json' if config.objective == 'moco' else FILE if len(config.tasks) == 1 else 'rounds.json'
  return pathlib.Path(config.workdir, results).exists()


def find_changes(config: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """{field: (value with which the run in the workdir was made, value in this config)} where they differ. The folder may
  have been moved since, together with the run that it started from.

  Raises:
    ConfigError: the config in the workdir is missing or damaged.
  """
  before, now = (flatten(fields) for fields in (saved.read_config(config.workdir), config.to_dict()))
  # `tasks` has the names in their order, which the other fields say too.
  own = {'workdir', 'extend', 'tasks'}
  if config.objective == 'multitask' or not config.data.datasets:
    own.add('data.datasets')  # the run fills this in
  if 'init_from' in now and locate_init(before) == locate_init(now):
    own.add('init_from')
  return {field: (before.get(field), now.get(field)) for field in sorted({*before, *now} - own)
          if before.get(field) != now.get(field)}


def locate_init(fields: Mapping[str, Any]) -> str:
  """The path from the workdir of a run to that of the run that it starts from; '' if it starts from none."""
  source, workdir = fields.get('init_from'), fields.get('workdir')
  is_given = isinstance(source, str) and isinstance(workdir, str)  # the config may be damaged
  return os.path.relpath(source, workdir) if is_given and source and workdir else ''
