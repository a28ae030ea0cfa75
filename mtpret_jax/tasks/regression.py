"""Regression: a quantity such as bone age, from the mean over the last feature map.

Letters: B images, N rows of a table.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy
from ml_collections import ConfigDict

from mtpret_jax.data.records import name_record
from mtpret_jax.evaluation.metrics import regression
from mtpret_jax.tasks.task import About, Row, TaskKind, TaskModel, average, find_rows, sum_known

with epy.lazy_imports():
  import jax
  import optax

  from mtpret_jax.models import heads


MIN_SPREAD = 1e-6  # of the largest value: float32 has steps of 1e-7 of it

# Labels


def read_label(about: About, task_config: ConfigDict, record: Mapping) -> Row:
  """`value` (1,) float32, in the dataset's unit."""
  value = np.asarray(record['value'], np.float32)
  if value.shape != (1,) or not np.isfinite(value).all():
    raise ValueError(f'{name_record(record)}: the value is {value.tolist()}, but must be one finite number')
  return {'value': value}


def label_shapes(about: About, task_config: ConfigDict) -> dict[str, tuple]:
  return {'value': ((1,), np.float32)}


def find_defect(about: About, task_config: ConfigDict, record: Mapping, split: str) -> str:
  return '' if np.isfinite(record['value']).all() else 'unknown value'


def find_split_defect(about: About, task_config: ConfigDict, labels: Sequence[Mapping]) -> str:
  values = np.concatenate([np.asarray(label['value'], np.float32) for label in labels]).astype(float)
  if not np.ptp(values):
    return f'has the same value in all images ({values[0]:g})'
  if np.ptp(values) < max(MIN_SPREAD * np.abs(values).max(), np.finfo(np.float32).tiny):
    return f'has values that differ by {np.ptp(values):.1g} only (about {values[0]:g}), which float32 cannot resolve'
  return ''


# Model


def fit_head(task_config: ConfigDict, source: Any) -> ConfigDict:
  """`mean` and standard `deviation` of the training values, in their unit. The deviation is 1 if all values are equal,
  because z-scores divide by it. Without records they are 0 and 1, which is enough to know the shapes."""
  if source is None:
    return ConfigDict({'mean': 0.0, 'deviation': 1.0})
  labels = source.find_labels()
  values = np.concatenate([labels[index]['value'] for index in range(len(source))])
  # The squares of small values are 0 in float32.
  deviation = float(values.std()) or float(values.std(dtype=np.float64))
  return ConfigDict({'mean': float(values.mean()), 'deviation': deviation if np.ptp(values) else 1.0})


def make_model(about: About, config: ConfigDict | None) -> TaskModel:
  """Pool and linear layer. The head predicts z-scores of the training values; the loss is smooth L1 on them, quadratic
  up to one standard deviation."""
  assert config is not None  # `fit_head` made it

  def loss(outputs: Mapping, batch: Mapping) -> tuple['jax.Array', 'jax.Array']:
    losses_B1 = optax.huber_loss(outputs['z_score'], (batch['value'] - config.mean) / config.deviation)
    return sum_known(losses_B1, find_rows(batch)[:, None])

  def predict(outputs: Mapping) -> dict:
    return {'value': outputs['z_score'] * config.deviation + config.mean}

  return TaskModel(
    make_head=lambda trunk, rngs: heads.LinearHead(trunk.channels, 1, rngs=rngs),
    output_stride=32,
    apply=lambda head, features, batch, *, groups, rng: {'z_score': head(features)},
    loss=loss,
    predict=predict,
    merge=functools.partial(average, 'value'))


# Scores


def make_row(about: About, batch: Mapping, predictions: Mapping, index: int) -> dict[str, Any]:
  return {'predicted': predictions['value'][index], 'value': batch['value'][index]}


def draw(axes: Any, about: About, labels: Row, prediction: Row) -> None:
  truth = f'\ntrue {labels["value"][0]:.1f}' if labels else f' {about["value"]["unit"]}'
  axes.set_xlabel(f'predicted {prediction["value"][0]:.1f}{truth}', fontsize=7)


REGRESSION = TaskKind(
  name='regression',
  annotation='value',
  read_label=read_label,
  label_shapes=label_shapes,
  find_defect=find_defect,
  make_model=make_model,
  make_row=make_row,
  metrics=regression.METRICS,
  draw=draw,
  find_split_defect=find_split_defect,
  fit_head=fit_head)
