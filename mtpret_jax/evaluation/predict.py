"""Runs a split through a task and scores what it predicts."""

import contextlib
import functools

import jax
import numpy as np
from tqdm import tqdm

from mtpret_jax.data.pipeline import choose_findings, read_task
from mtpret_jax.data.records import describe_record
from mtpret_jax.evaluation import metrics
from mtpret_jax.objectives.multitask import make_predict
from mtpret_jax.runtime import watchdog
from mtpret_jax.runtime.sharding import by_batch, make_mesh, place_batch, replicated
from mtpret_jax.tasks import dataset

LOWER_IS_BETTER = ('MAE', 'RMSE')


def make_collector(config, name, split, mesh):
  """(source, collect) of the task `name` on one split; collect(params, stats) -> rows as `metrics.score` takes them.
  The numbers that the head needs are those of the training split."""
  source = dataset.open_suitable(config, name, split)
  train = dataset.open_suitable(config, name, 'train', config.data.fraction)
  task = dataset.make_labelled_task(config, name, train)
  answer = make_predict(config, name, task)

  @functools.partial(jax.jit, in_shardings=(replicated(mesh), replicated(mesh), by_batch(mesh)),
                     out_shardings=replicated(mesh))
  def predict(params, stats, batch):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return answer(params, stats, batch)

  return source, functools.partial(collect, config.tasks[name], predict, mesh, source, f'{name} {split}')


def collect(task_config, predict, mesh, source, title, params, stats):
  """The predictions and the truth of every record of `source`, one row for each, in its order; {field: array}. Each
  process reads and shows its share; the first has the rows, the others none."""
  share = task_config.batch // jax.process_count()
  own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  rows, described = [], []
  for start in tqdm(range(0, len(source), task_config.batch), desc=title, unit='batch', leave=False,
                    disable=jax.process_index() > 0 or None):
    places = np.arange(start, start + task_config.batch)
    valid, places = places < len(source), np.minimum(places, len(source) - 1)
    read = [read_task(source.about, task_config, source.records[int(place)]) for place in places[own]]
    batch = {field: np.stack([row[field] for row in read]) for field in read[0]} | {'valid': valid[own]}
    batch = place_batch(batch, mesh)
    compiles = start == 0
    with contextlib.nullcontext() if compiles else watchdog.time_limit(f'{title}, images from {start} on'):
      shown, predicted = jax.device_get(predict(params, stats, batch))
    if jax.process_index():
      continue
    rows += [describe_row(task_config.kind, source.about, index, shown, predicted) for index in range(valid.sum())]
    described += [describe_record(source.records[int(place)]) for place in places[valid]]
  return {field: stack([row[field] for row in kept]) for kept in (rows, described) if kept for field in kept[0]}


def describe_row(kind, about, index, batch, predicted):
  """One image's prediction and truth."""
  if kind == 'classification':
    return {'score': predicted['score'][index], 'present': batch['present'][index], 'label_mask': batch['label_mask'][index]}
  if kind == 'regression':
    return {'predicted': predicted['value'][index], 'value': batch['value'][index]}
  if kind == 'segmentation':
    return {'confusion': count_pixels(batch['mask'][index], predicted['mask'][index], len(about['mask']))}
  found, real = predicted['class_id'][index] >= 0, batch['class_id'][index] >= 0
  return {'boxes': predicted['boxes'][index][found], 'class_id': predicted['class_id'][index][found],
          'score': predicted['score'][index][found], 'truth_boxes': batch['boxes'][index][real],
          'truth_class_id': batch['class_id'][index][real], 'sizes': np.array(batch['image'].shape[1:3])}


def count_pixels(mask_HW, predicted_HW, classes):
  """(T, T) pixels of true class t predicted as class p, over the annotated ones."""
  there = mask_HW >= 0
  pairs = mask_HW[there].astype(int) * classes + predicted_HW[there]
  return np.bincount(pairs, minlength=classes ** 2).reshape(classes, classes)


def stack(values):
  """Rows of one shape as one array; what varies in length, such as boxes, as an array of objects."""
  if isinstance(values[0], np.ndarray) and len({value.shape for value in values}) > 1 or np.ndim(values[0]) == 2 and (
      np.shape(values[0])[1] == 4):
    rows = np.empty(len(values), object)
    rows[:] = values
    return rows
  return np.stack(values) if isinstance(values[0], np.ndarray) else np.array(values)


def score_tasks(config, state, split, collectors):
  """{task: (rows, result of `metrics.score`)} of a state on one split, in the first process, and {} in the others;
  `collectors` are kept from call to call."""
  mesh, scored = make_mesh(), {}
  for name in config.tasks:
    if (name, split) not in collectors:
      collectors[name, split] = make_collector(config, name, split, mesh)
    source, collect_rows = collectors[name, split]
    rows = collect_rows({part: state.params[part] for part in ('trunk', name)}, state.carry['stats'])
    if jax.process_index():
      continue
    about = choose_findings(source.about, config.tasks[name])
    scored[name] = rows, metrics.score(config.tasks[name].kind, about, rows, resamples=config.resamples)
  return scored


def headline_of(result):
  """(name, value, sign) of the score that decides; sign is -1 where lower is better."""
  name = result['headline']
  return name, result['scores'][name]['value'], -1 if name.split()[0] in LOWER_IS_BETTER else 1
