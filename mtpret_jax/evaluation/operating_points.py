"""`operating_points.json`: the thresholds and the temperature that validation recommends for the best state of stage 3.

The test split is scored at them. They are chosen on validation, because a threshold that is chosen on the images it is
judged on looks better than it is.
"""

import json
import logging
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.evaluation import predict
from mtpret_jax.evaluation.image_numbers import count_images
from mtpret_jax.evaluation.metrics import NotFinite, operating_points
from mtpret_jax.evaluation.metrics.finding_thresholds import YOUDEN
from mtpret_jax.evaluation.metrics.scoring import Metrics, Rows
from mtpret_jax.evaluation.metrics.temperature import apply_temperature, fit_temperature
from mtpret_jax.runtime import distributed
from mtpret_jax.runtime.atomic_io import write_json
from mtpret_jax.runtime.sharding import make_mesh
from mtpret_jax.step import TrainState
from mtpret_jax.tasks import dataset, find_kind
from mtpret_jax.tasks.task import About

log = logging.getLogger(__name__)

FILE = 'operating_points.json'
# kind of task -> why a finding or a class of boxes has no threshold
NO_POINT = {
  'classification': 'validation gives no threshold, because it lacks images with the finding or images without it',
  'detection': 'validation gives no threshold, because no predicted box hits a true box of the class'}
Z = 1.959964  # of the normal distribution, for 95 %
FEW = 100  # images or boxes; with fewer, an interval at 0 or 1 is clearly too narrow

Points = Mapping[str, dict[str, Any]]  # {task: the entry of `operating_points.json`}


def choose(config: ConfigDict, state: TrainState, workdir: pathlib.Path,
           predictors: dict[tuple[str, str], predict.Predictor]) -> Points:
  """The operating points of each task that has thresholds, chosen on the validation split, in all processes. Writes
  them to `workdir`, or removes an earlier file if no task has any."""
  mesh, rows_of = make_mesh(), {}
  for name, task_config in config.tasks.items():
    if find_kind(task_config.kind).metrics.thresholds is not None:
      predictors[name, 'validation'] = predict.find_predictor(config, name, 'validation', mesh, predictors)
      rows_of[name] = predict.collect_rows(config, name, 'validation', state, predictors[name, 'validation'], mesh)

  def write() -> Points:
    points: dict[str, dict[str, Any]] = {}
    for name, rows in rows_of.items():
      task_config = config.tasks[name]
      about = dataset.describe_task(predictors[name, 'validation'].source.about, task_config)
      try:
        points[name] = choose_of_task(config, find_kind(task_config.kind).metrics, about, rows)
      except NotFinite as error:
        log.warning('tasks.%s has no operating points: validation: %s', name, error)
    if points:
      write_json(workdir / FILE, points)
    else:
      (workdir / FILE).unlink(missing_ok=True)
    return points
  return distributed.run_on_first(write)


def choose_of_task(config: ConfigDict, metrics: Metrics, about: About, rows: Rows) -> dict[str, Any]:
  temperature = 1.0
  if config.get('temperature', False) and metrics.task == 'classification':
    temperature = fit_temperature(about, metrics.prepare(about, rows))
    rows = {**rows, 'score': apply_temperature(about, rows['score'], temperature)}
  rule = config.get('operating_point', YOUDEN)
  return {'temperature': temperature, **operating_points.choose(metrics, about, rows, rule)}


def read(workdir: str | pathlib.Path) -> Points:
  """What an earlier run wrote; {} if there is no file, or with a warning if it is damaged."""
  path = pathlib.Path(workdir, FILE)
  if not path.exists():
    return {}
  try:
    points = json.loads(path.read_text(encoding='utf-8'))
    for point in points.values():
      numbers = [point['temperature'], *point['thresholds'].values()]
      if not all(math.isfinite(number) for number in numbers) or not point['temperature'] > 0:
        raise ValueError('a number is not finite, or the temperature not positive')
      str(point['rule'])
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    log.warning('%s is damaged (%s): the scores have no operating points', path, error)
    return {}
  return points


def score_task(metrics: Metrics, about: About, rows: Rows, point: Mapping[str, Any] | None,
               resamples: int) -> dict[str, Any]:
  """What `scores.json` says about a task at its operating points: {'rule', 'temperature', 'classes': {class:
  {'threshold', 'n', score: {'value', 'interval'}}}, 'notes', why a class has none, and 'doubts', see `list_doubts`}."""
  if point is None:
    return {'rule': '', 'temperature': 1.0, 'classes': {}, 'notes': ['validation gave no operating points']}
  classes = operating_points.measure(metrics, about, rows, point['thresholds'], resamples=resamples)
  assert metrics.thresholds is not None
  missing = [name for name in metrics.thresholds.name_classes(about) if name not in point['thresholds']]
  return {'rule': point['rule'], 'temperature': point['temperature'], 'classes': classes,
          'notes': [f'{name}: {NO_POINT.get(metrics.task, "validation gives no threshold")}' for name in missing],
          'doubts': list_doubts(classes, count_images(about, rows), metrics.task)}


def list_doubts(classes: Mapping[str, Mapping[str, Any]], images: Mapping[str, int], kind: str) -> list[str]:
  """A sentence for each sensitivity and specificity of 0 or 1 that few images or boxes give: a bootstrap never draws
  what was not seen. It has the interval of Wilson (1927) instead, which takes images or boxes as independent.

  Args:
    classes: of `score_task`.
    images: {class: how many images show it}.
    kind: of the task.
  """
  doubts = []
  for title, scores in classes.items():
    seen = {'sensitivity': scores['n']}  # true boxes
    if kind == 'classification':
      seen = {'sensitivity': images[title], 'specificity': scores['n'] - images[title]}
    for name, number in seen.items():
      value = scores.get(name, {}).get('value')
      if value in (0, 1) and 0 < number < FEW:
        ends = (0.0, 1 - number / (number + Z * Z)) if value == 0 else (number / (number + Z * Z), 1.0)
        one, many = ('box', 'boxes') if kind == 'detection' else ('image', 'images')
        doubts.append(f'{title}: the {name} of {value:g} is from {number} {one if number == 1 else many}, and the '
                      f'bootstrap interval is too narrow at 0 and 1; that of Wilson is {ends[0]:.3f} to {ends[1]:.3f}')
  return doubts
