"""Several models of one task, such as several seeds, whose predictions become one."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtpret_jax.config.errors import ConfigError, show
from mtpret_jax.export.trained import Trained
from mtpret_jax.tasks.task import TaskModel, keep


def keep_undecided(model: TaskModel) -> TaskModel:
  """A model of an ensemble: it predicts what `merge` takes, such as logits in place of a mask."""
  return dataclasses.replace(model, decide=keep)


def compile_merge(model: TaskModel) -> Callable[[Sequence[Mapping]], dict[str, np.ndarray]]:
  """What the models predict for one batch -> the prediction of all."""
  merge = model.merge
  assert merge is not None  # `check_ensemble` has seen to it
  compiled = jax.jit(lambda predictions: model.decide(merge(predictions)))
  return lambda predictions: jax.device_get(compiled(predictions))


def check_ensemble(members: Sequence[Trained], task: str) -> None:
  """Raises ConfigError for several models whose predictions cannot become one."""
  if len(members) == 1:
    return
  first = members[0]
  if not task:
    raise ConfigError(f'{first.run} has no task or several, and an ensemble predicts one: name the task of runs of '
                      f'stage 2 or 3')
  for member in members[1:]:
    if task not in member.tasks:
      raise ConfigError(f'{member.run} has no task {task!r}, which {first.run} has: load runs of one task')
    one, other = describe_labels(first, task), describe_labels(member, task)
    if differing := [name for name in one if one[name] != other[name]]:
      name = differing[0]
      raise ConfigError(f'{first.run} and {member.run} cannot be averaged, because {name} is {show(one[name])} in one '
                        f'and {show(other[name])} in the other')
  if first.tasks[task].make_model().merge is None:
    raise ConfigError(f'predictions of {task}, a task of the kind {first.tasks[task].kind}, have no mean: load one run')


def describe_labels(member: Trained, task: str) -> dict[str, Any]:
  """What must be equal in models whose predictions become one."""
  fitted = member.tasks[task]
  labels = {field: fitted.about.get(field) for field in ('findings', 'relation', 'value', 'mask', 'box_classes')}
  return {'kind': fitted.kind, **labels, 'stored_size': member.config.data.stored_size}
