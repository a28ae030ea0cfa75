"""`model.json` in the workdir of a run of stage 2 or 3: its tasks with the numbers that their heads took from the
training records. With it and a checkpoint, the model can be rebuilt without the training data."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.runtime.atomic_io import write_json
from mtpret_jax.tasks.dataset import open_task
from mtpret_jax.tasks.fitted import FittedTask, fit_task, read_task

FILE = 'model.json'


def write_tasks(workdir: str | pathlib.Path, tasks: Mapping[str, FittedTask]) -> None:
  """Writes `model.json`, in the first process; nothing without tasks, as in stage 1."""
  if tasks and jax.process_index() == 0:
    write_json(pathlib.Path(workdir, FILE), {'tasks': {name: task.as_json() for name, task in tasks.items()}})


def read_tasks(workdir: str | pathlib.Path, config: ConfigDict) -> dict[str, FittedTask]:
  """{task: `FittedTask`} of a run of stage 2 or 3 with this config, in the order of the config.

  A run of an earlier version has no `model.json`. Its tasks are then fitted to its training data again.

  Raises:
    ConfigError: the file is damaged, or there is neither the file nor the data.
  """
  path = pathlib.Path(workdir, FILE)
  if not path.exists():
    return fit_again(workdir, config)
  try:
    saved: Mapping[str, Any] = json.loads(path.read_text(encoding='utf-8'))['tasks']
    return {name: read_task(saved[name]) for name in config.tasks}
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged ({type(error).__name__} {as_line(error)}): restore the file from a backup, '
                      f'or delete it where the training data of the run is at hand') from error


def fit_again(workdir: str | pathlib.Path, config: ConfigDict) -> dict[str, FittedTask]:
  try:
    return {name: fit_task(config, name, open_task(config, name, 'train', config.data.fraction))
            for name in config.tasks}
  except (OSError, ValueError) as error:  # a ConfigError is a ValueError
    raise ConfigError(f'{workdir} has no {FILE}, which earlier versions did not write, and its training data cannot '
                      f'be used: {as_line(error)}') from error
