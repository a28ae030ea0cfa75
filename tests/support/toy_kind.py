"""A kind of task that the package does not have, in one file: how many boxes an image has."""

import numpy as np
from etils import epy

from mtpret_jax.evaluation.metrics.scoring import Metrics
from mtpret_jax.tasks.task import TaskKind, TaskModel, find_rows, sum_known

with epy.lazy_imports():
  import jax.numpy as jnp

  from mtpret_jax.models import heads


def read_label(about, task_config, record):
  return {'count': np.float32([len(record['objects']['class_id'])])}


def make_model(about, config):
  def loss(outputs, batch):
    return sum_known(jnp.square(outputs['count'] - batch['count']), find_rows(batch)[:, None])

  return TaskModel(
    make_head=lambda trunk, rngs: heads.LinearHead(trunk.channels, 1, rngs=rngs), output_stride=32,
    apply=lambda head, features, batch, *, groups, rng: {'count': head(features)}, loss=loss,
    predict=lambda outputs: outputs)


def make_scorer(about, rows):
  error_N = np.abs(rows['predicted'] - rows['count'])[:, 0]
  return lambda weights_NR: {'mean error': error_N @ weights_NR / np.maximum(weights_NR.sum(0), 1)}


def read_lines(about, images):
  numbers_N2 = np.array([line for line, in images], float)
  return {'predicted': numbers_N2[:, :1], 'count': numbers_N2[:, 1:]}


COUNT = TaskKind(
  name='count',
  annotation='box_classes',
  read_label=read_label,
  label_shapes=lambda about, task_config: {'count': ((1,), np.float32)},
  find_defect=lambda about, task_config, record, split: '',
  make_model=make_model,
  make_row=lambda about, batch, predictions, index: {
    'predicted': predictions['count'][index], 'count': batch['count'][index]},
  metrics=Metrics(
    task='count', columns=('predicted', 'count'), predicted=('predicted',), find_headline=lambda about: 'mean error',
    prepare=lambda about, rows: rows, make_scorer=make_scorer,
    name_columns=lambda about: ['predicted boxes', 'boxes'],
    write_lines=lambda about, rows: [[line] for line in np.hstack([rows['predicted'], rows['count']]).tolist()],
    read_lines=read_lines, sign=-1),
  draw=lambda axes, about, labels, prediction: axes.set_xlabel(  # `labels` is empty for an image that has none
    ' of '.join(f'{fields["count"][0]:.1f}' for fields in (prediction, labels) if fields)))
