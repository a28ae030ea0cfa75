"""Loads a trained model: from a run, from several runs of one task, from an export or from a file of weights."""

import os
import pathlib
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.evaluation.test_scores import STATES
from mtpret_jax.export.trained import Trained, read_run
from mtpret_jax.models.torchvision_weights import import_trunk
from mtpret_jax.models.trunk import TRUNKS
from mtpret_jax.models.weight_files import read as read_weights
from mtpret_jax.objectives.multitask import TRUNK
from mtpret_jax.predict import exported
from mtpret_jax.predict.model import Model
from mtpret_jax.runtime import backend

WEIGHTS = ('.safetensors', '.pth', '.pt')


def load(path: str | os.PathLike | Sequence[str | os.PathLike], task: str | None = None, state: str | None = None, *,
         size: int = 224) -> Model:
  """What `mtpret_jax.load` does, with its arguments and errors."""
  if state not in (None, *STATES):
    raise ConfigError(f'unknown state {state!r}: choose one of {", ".join(STATES)}')
  install_for_cpu()
  paths = [pathlib.Path(each).expanduser() for each in ([path] if isinstance(path, str | os.PathLike) else path)]
  if not paths:
    raise ConfigError('no run given: name the workdir of a run')
  if len(paths) == 1 and (folder := exported.find_export(paths[0], task)):
    return exported.load_export(folder, task, state)
  return Model([read_model(each, state or '', size) for each in paths], task)


def install_for_cpu() -> None:
  """The implementations for CPUs, as the training command installs them: the numbers are then those of the run."""
  if jax.default_backend() == 'cpu' and not backend.OVERRIDES:
    from mtpret_jax import cpu  # here, because it is not imported on other backends
    cpu.install()


def read_model(path: pathlib.Path, state: str, size: int) -> Trained:
  if path.suffix in WEIGHTS and path.is_file():
    return read_trunk_file(path, size)
  return read_run(path, state)


def read_trunk_file(path: pathlib.Path, size: int) -> Trained:
  """A file of weights as if it were a run of stage 1."""
  problem = ''
  try:
    weights = read_weights(path)
    for name in TRUNKS:
      try:
        params, stats = import_trunk(weights, name)
      except ValueError as error:
        problem = as_line(error)
      else:
        config = ConfigDict({'trunk': name, 'dtype': 'float32', 'data': {'size': size, 'stored_size': '256'},
                             'augment': {'size': size}})
        return Trained(path, config, 'last', 0, {TRUNK: params}, {TRUNK: stats}, {})
  except (OSError, ValueError) as error:
    problem = as_line(error)
  raise ConfigError(f'{path} does not hold the weights of a trunk: {problem}')
