"""Runs a split through the models of its tasks and scores the predictions."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mtpret_jax.data.records import describe_record
from mtpret_jax.data.sources import Source, Subset
from mtpret_jax.evaluation import metrics
from mtpret_jax.evaluation.metrics.scoring import to_objects
from mtpret_jax.evaluation.metrics.temperature import apply_temperature
from mtpret_jax.objectives.multitask import make_predict
from mtpret_jax.runtime import watchdog
from mtpret_jax.runtime.loss_guard import Diverged
from mtpret_jax.runtime.sharding import by_batch, make_mesh, place_batch, replicated
from mtpret_jax.step import TrainState
from mtpret_jax.tasks import dataset, find_kind
from mtpret_jax.tasks.fitted import fit_task
from mtpret_jax.tasks.task import TaskModel

log = logging.getLogger(__name__)

Predict = Callable[[Mapping, Mapping, Mapping], tuple[Mapping, Mapping]]


@dataclasses.dataclass(frozen=True)
class Predictor:
  """Attributes:
    source: the records of a split.
    read: record -> one row of a batch, with all its labels.
    predict: the compiled model: (params, stats, batch) -> (the batch as the trunk sees it, predictions).
    temperature: of the probabilities of findings, see `metrics/temperature.py`; 1 leaves predictions alone.
  """

  source: Source
  read: Callable[[Mapping], Mapping]
  predict: Predict
  temperature: float = 1.0


def make_predictor(config: ConfigDict, name: str, split: str, mesh: jax.sharding.Mesh) -> Predictor:
  """The predictor of the task `name` on one split. The head takes its numbers, such as the mean of a value, from the
  training split."""
  source, read = dataset.open_for_evaluation(config, name, split)
  train = dataset.open_task(config, name, 'train', config.data.fraction)
  return Predictor(source, read, compile_predict(config, name, fit_task(config, name, train).make_model(), mesh))


def compile_predict(config: ConfigDict, name: str, model: TaskModel, mesh: jax.sharding.Mesh) -> Predict:
  """The compiled model of the task `name`. It is compiled when it is first called, and again for another batch size."""
  predict = make_predict(config, name, model)

  @functools.partial(jax.jit, in_shardings=(replicated(mesh), replicated(mesh), by_batch(mesh)),
                     out_shardings=replicated(mesh))
  def predict_batch(params: Mapping, stats: Mapping, batch: Mapping) -> tuple[Mapping, Mapping]:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return predict(params, stats, batch)

  return predict_batch


def find_predictor(config: ConfigDict, name: str, split: str, mesh: jax.sharding.Mesh,
                   predictors: Mapping[tuple[str, str], Predictor]) -> Predictor:
  """The predictor of a task and split among `predictors`, {(task, split): predictor}, or a new one. It shares the
  compiled model of another split of the task."""
  if (name, split) in predictors:
    return predictors[name, split]
  for (task, _), other in predictors.items():
    if task == name:
      source, read = dataset.open_for_evaluation(config, name, split)
      return dataclasses.replace(other, source=source, read=read)
  return make_predictor(config, name, split, mesh)


def score_tasks(config: ConfigDict, state: TrainState, split: str, predictors: dict[tuple[str, str], Predictor],
                temperatures: Mapping[str, float] = MappingProxyType({})) -> dict[str, tuple[dict, dict]]:
  """{task: (rows, result of `metrics.score`)} of a state on one split, in the first process; {} in the others.

  `predictors` are filled in and kept from call to call, so that each model is compiled once in a run. Predictions are
  those at the task's temperature in `temperatures`, if it is there.

  Raises:
    Diverged: predictions on the training or test split are not finite. In validation, the score is undefined then: an
      earlier or later state may be good.
  """
  mesh, scored = make_mesh(), {}
  for name, task_config in config.tasks.items():
    predictors[name, split] = dataclasses.replace(find_predictor(config, name, split, mesh, predictors),
                                                  temperature=temperatures.get(name, 1.0))
    source = predictors[name, split].source
    rows = collect_rows(config, name, split, state, predictors[name, split], mesh)
    if jax.process_index() == 0:
      about, kind = dataset.describe_task(source.about, task_config), find_kind(task_config.kind)
      try:
        scored[name] = rows, metrics.score(kind.metrics, about, rows, resamples=config.resamples)
      except metrics.NotFinite as error:
        if split != 'validation':
          raise Diverged(f'tasks.{name}, {split} split: {error}') from error
        log.warning('%s, validation: %s', name, error)
        scored[name] = rows, metrics.describe_undefined(kind.metrics, about, rows)
  return scored


def collect_rows(config: ConfigDict, name: str, split: str, state: TrainState, predictor: Predictor,
                 mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
  """Predictions and labels of every record of a split, in order, as columns with one row per image."""
  task_config = config.tasks[name]
  kind, source = find_kind(task_config.kind), predictor.source
  about, rows = dataset.describe_task(source.about, task_config), []
  for first, count, batch, predictions in predict_batches(task_config, f'{name} {split}', state, name, predictor, mesh):
    for index in range(count):
      rows.append(kind.make_row(about, batch, predictions, index)
                  | describe_record(source.records[first + index]))
  return {column: stack([row[column] for row in rows], column in kind.metrics.ragged)
          for column in (rows[0] if rows else ())}


def predict_batches(task_config: ConfigDict, title: str, state: TrainState, name: str, predictor: Predictor,
                    mesh: jax.sharding.Mesh) -> Iterator[tuple[int, int, Mapping, Mapping]]:
  """Yields (place of the first record, images without padding, batch, predictions), in the first process.

  Each process reads its share of each batch and takes part in the prediction; only the first one yields.
  """
  source, read = predictor.source, predictor.read
  params = {part: state.params[part] for part in ('trunk', name)}
  size = task_config.batch
  share = size // jax.process_count()
  own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  for first in tqdm(range(0, len(source), size), desc=title, unit='batch', leave=False,
                    disable=jax.process_index() > 0 or None):
    places = np.arange(first, first + size)
    valid, places = places < len(source), np.minimum(places, len(source) - 1)  # the last batch is padded
    rows = [read(source.records[int(place)]) for place in places[own]]
    batch = {field: np.stack([row[field] for row in rows]) for field in rows[0]} | {'valid': valid[own]}
    # The first batch includes the compilation, which has no time limit.
    limit = watchdog.time_limit(f'{title}, images from {first} on') if first else contextlib.nullcontext()
    with limit:
      seen, predictions = jax.device_get(predictor.predict(params, state.carry['stats'], place_batch(batch, mesh)))
    if jax.process_index() == 0:
      if predictor.temperature != 1:
        about = dataset.describe_task(source.about, task_config)
        predictions = {**predictions, 'score': apply_temperature(about, predictions['score'], predictor.temperature)}
      yield first, int(valid.sum()), seen, predictions


def collect_examples(config: ConfigDict, name: str, split: str, state: TrainState, predictor: Predictor,
                     places: Sequence[int]) -> list[dict[str, Any]]:
  """The images at these places of a split, for pictures: [{'image', 'image_id', 'labels', 'prediction', 'about'}].
  Images are (S, S) in 0-1, labels and predictions dicts of one image's fields."""
  task_config, source, examples = config.tasks[name], predictor.source, []
  few = dataclasses.replace(source, records=Subset({source.split: source.records},
                                                   [(source.split, int(place)) for place in places]))
  about = dataset.describe_task(source.about, task_config)
  for first, images, batch, predictions in predict_batches(task_config, f'{name} examples', state, name,
                                                           dataclasses.replace(predictor, source=few), make_mesh()):
    for index in range(images):
      pixels = np.asarray(batch['image'][index][..., 0], np.float32)
      examples.append({
        'image': (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-6), 'about': about,
        'image_id': describe_record(few.records[first + index])['image_id'],
        'labels': {field: values[index] for field, values in batch.items() if field not in ('image', 'valid')},
        'prediction': {field: values[index] for field, values in predictions.items()}})
  return examples


def spread_places(images: int, count: int) -> list[int]:
  """Up to `count` places at equal distances in a split."""
  return np.unique(np.linspace(0, images - 1, min(count, images)).astype(int)).tolist()


def stack(values: list, ragged: bool) -> np.ndarray:
  """One column: an array with one row per image, or an object array where rows differ in length."""
  if ragged:
    return to_objects(values)
  return np.stack(values) if isinstance(values[0], np.ndarray) else np.array(values)


def find_headline(result: Mapping[str, Any]) -> tuple[str, float | None, int]:
  """(name, value, sign) of the score that decides between models; sign is -1 where lower is better."""
  name = result['headline']
  return name, result['scores'][name]['value'], result['sign']
