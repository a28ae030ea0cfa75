"""For classes of unequal size: weights in the loss of a task, and a sampler that draws rare classes more often."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.class_weights import NONE
from mtpret_jax.tasks.dataset import describe_split, open_usable
from mtpret_jax.tasks.task import TaskModel


def weigh_loss(config: ConfigDict, name: str, model: TaskModel) -> TaskModel:
  """The model of the task `name` with the loss of `tasks.NAME.loss`; the model itself if that asks for nothing.

  Raises:
    ConfigError: the number of weights is not the number of classes.
  """
  task_config = config.tasks[name]
  make_loss = find_kind(task_config.kind).make_loss
  if make_loss is None or task_config.loss.class_weights == NONE and not task_config.loss.focal:
    return model
  source, usable = open_usable(config, name, 'train', config.data.fraction)
  try:
    return dataclasses.replace(model, loss=make_loss(source.about, task_config, usable.labels))
  except ConfigError as error:
    raise ConfigError(f'tasks.{name}.{error}') from error


def group_by_class(config: ConfigDict, name: str) -> list[np.ndarray]:
  """Groups of training records for `sampler='balanced'`: the records of the task's source whose rarest class is the
  same. Images without any class are a group too. [] for another sampler.

  Raises:
    ConfigError: there is one group only.
  """
  task_config = config.tasks[name]
  if task_config.sampler != 'balanced':
    return []
  source, usable = open_usable(config, name, 'train', config.data.fraction)
  classes = find_kind(task_config.kind).list_classes(source.about, task_config, usable.labels)
  rarest_N = np.full(len(usable.labels), -1)
  # From the most frequent class to the rarest, so that the rarest one of an image stays.
  for index, shown_N in sorted(enumerate(classes.values()), key=lambda pair: (pair[1].sum(), pair[0]), reverse=True):
    rarest_N[shown_N] = index
  groups = [np.flatnonzero(rarest_N == index) for index in np.unique(rarest_N)]
  if len(groups) < 2:
    raise ConfigError(f'tasks.{name}.sampler={task_config.sampler!r}: '
                      f'{describe_split(source.split, source.name, source.split_rule)} has no images of different '
                      f'classes', {f'tasks.{name}.sampler': 'shuffled'})
  return groups
