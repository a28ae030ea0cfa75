"""What the model of a task needs besides weights, such as names of classes, so that it can be rebuilt without data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.tasks import find_kind
from mtpret_jax.tasks.dataset import describe_task
from mtpret_jax.tasks.task import About, TaskModel

# Entries of a dataset's metadata that list its images or describe the archive. No model needs them, and they are long.
OF_THE_ARCHIVE = ('archive', 'left_out', 'negative_images', 'rejects')


@dataclasses.dataclass(frozen=True)
class FittedTask:
  """Attributes:
    kind: of task, such as 'classification'.
    dataset: the name of its dataset.
    about: the dataset's metadata, reduced to what the task asks for, without OF_THE_ARCHIVE.
    head: the config of the head, with numbers taken from the training records; None if it has none.
    size: the side of the square that the reader makes of a stored image, px.
    view: the side of the images that the network gets, px.
  """

  kind: str
  dataset: str
  about: About
  head: ConfigDict | None
  size: int
  view: int

  def make_model(self) -> TaskModel:
    """Raises KeyError where `about` lacks what the kind of task needs."""
    return find_kind(self.kind).make_model(self.about, self.head)

  def as_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self) | {'about': dict(self.about),
                                       'head': None if self.head is None else self.head.to_dict()}


def fit_task(config: ConfigDict, name: str, source: Any) -> FittedTask:
  """The task `name` of a run on its training records `source`. Reads every record where the head needs numbers.

  Raises:
    ConfigError: the dataset lacks what the kind of task needs.
  """
  task_config = config.tasks[name]
  try:
    about = describe_task(source.about, task_config)
    kept = {field: value for field, value in about.items() if field not in OF_THE_ARCHIVE}
    task = FittedTask(task_config.kind, task_config.dataset, kept,
                      find_kind(task_config.kind).fit_head(task_config, source), task_config.size,
                      task_config.augment.size)
    task.make_model()
  except KeyError as error:
    raise ConfigError(f'tasks.{name}: {task_config.dataset} has no {error}, which {task_config.kind} needs') from error
  return task


def read_task(fields: Mapping[str, Any]) -> FittedTask:
  """The inverse of `FittedTask.as_json`. Raises ValueError, TypeError or KeyError for anything else."""
  head = fields['head']
  task = FittedTask(str(fields['kind']), str(fields['dataset']), dict(fields['about']),
                    None if head is None else ConfigDict(head), int(fields['size']), int(fields['view']))
  task.make_model()
  return task
