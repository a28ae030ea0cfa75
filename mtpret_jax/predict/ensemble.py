"""Several models of one task, such as several seeds, whose predictions are averaged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.export.trained import Trained

AVERAGED = {'classification': 'score', 'regression': 'value'}  # what is averaged, by kind of task


def average(kind: str, outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """The mean of what the models predict for one batch."""
  field = AVERAGED[kind]
  return {field: np.asarray(np.mean([output[field] for output in outputs], axis=0), np.float32)}


def check_ensemble(members: Sequence[Trained], task: str) -> None:
  """Raises ConfigError for several models whose predictions cannot be averaged."""
  if len(members) == 1:
    return
  first = members[0]
  if not task or first.tasks[task].kind not in AVERAGED:
    raise ConfigError(f'several runs are averaged for {" and ".join(AVERAGED)} only: load one run, or name the task of '
                      f'runs that have several')
  for member in members[1:]:
    if task not in member.tasks:
      raise ConfigError(f'{member.run} has no task {task!r}, which {first.run} has: load runs of one task')
    one, other = describe_scale(first, task), describe_scale(member, task)
    if differing := [name for name in one if one[name] != other[name]]:
      name = differing[0]
      raise ConfigError(f'{first.run} and {member.run} cannot be averaged, because {name} is {one[name]} in one and '
                        f'{other[name]} in the other')


def describe_scale(member: Trained, task: str) -> dict[str, Any]:
  """What must be equal in models that see the same pixels and whose predictions are averaged."""
  fitted = member.tasks[task]
  return {'kind': fitted.kind, 'findings': fitted.about.get('findings'), 'relation': fitted.about.get('relation'),
          'value': fitted.about.get('value'), 'size': fitted.size, 'stored_size': member.config.data.stored_size}
