"""A task's labelled records, and the task on them."""

import logging

import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data import pipeline
from mtpret_jax.data.sources import open_source
from mtpret_jax.data.suitable import keep_suitable
from mtpret_jax.tasks import make_task

log = logging.getLogger(__name__)


def open_sources(config, split, fraction=1.0):
  """{task: Source} of one split of the tasks' datasets: the records that can teach their task. For detection these are
  the images with boxes unless the task_config says that those without are `negatives`, seen and found empty."""
  return {name: open_suitable(config, name, split, fraction) for name in config.tasks}


def open_suitable(config, name, split, fraction=1.0):
  task_config = config.tasks[name]
  source = open_source(task_config.dataset, config.data.dir, config.data.stored_size, split, config.data.split, fraction=fraction)
  if task_config.negatives:
    return source
  source, left_out = keep_suitable(task_config.kind, source)
  if left_out:
    log.info('%s, %s of %s: left out %s', name, split, task_config.dataset, ', '.join(
      f'{count} images with {reason}' for reason, count in left_out.items()))
  return source


def make_labelled_task(config, name, source):
  """The task `name` on the dataset of `source`, with the numbers that its head needs."""
  task_config = config.tasks[name]
  if task_config.kind == 'regression':
    values = np.concatenate([source.records[index]['value'] for index in range(len(source))])
    head = ConfigDict(dict(mean=float(values.mean()), deviation=float(values.std())))
  else:
    head = task_config.get('head')
  try:
    return make_task(task_config.kind, pipeline.choose_findings(source.about, task_config), head)
  except KeyError as error:
    raise ConfigError(f'tasks.{name}: {task_config.dataset} has no {error}, which {task_config.kind} needs') from error
