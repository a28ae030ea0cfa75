"""A model that `python -m mtpret_jax.export RUN --to stablehlo` has written, as an object like that of its run."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import numpy as np
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.export.stablehlo import FILE, SPEC, WEIGHTS
from mtpret_jax.export.trained import Trained
from mtpret_jax.predict.model import EMBED_BATCH, Model
from mtpret_jax.runtime.sharding import make_mesh
from mtpret_jax.tasks.fitted import FittedTask
from tfds_builders.common.dataset import SIZES

EXTRA = ('logits', 'features', 'embedding')  # outputs that predictions of a run do not have


def find_export(folder: pathlib.Path, task: str | None) -> pathlib.Path | None:
  """The folder of the exported model; None if there is none. An export of several tasks has a folder for each."""
  return next((place for place in (folder, folder / str(task)) if (place / SPEC).is_file()), None)


def load_export(folder: pathlib.Path, task: str | None = None, state: str | None = None) -> Model:
  """Raises ConfigError if the export has no such task or state, is damaged, or jax cannot read it."""
  try:
    spec = json.loads((folder / SPEC).read_text(encoding='utf-8'))
    trained = describe(folder, spec)
    trained.check_state(state)
    with np.load(folder / WEIGHTS) as packed:
      weights = jax.device_put(dict(packed))
    call = jax.jit(jax.export.deserialize(bytearray((folder / FILE).read_bytes())).call)
    return ExportedModel(trained, task, spec['thresholds'], functools.partial(call, weights))
  except ConfigError:
    raise
  except ImportError as error:
    raise ConfigError(f'jax reads StableHLO with a package that is missing ({error}): type pip install '
                      f'flatbuffers') from error
  except Exception as error:  # jax raises many types for damaged bytes
    raise ConfigError(f'{folder} holds no model that this version of jax can read ({type(error).__name__} '
                      f'{as_line(error)}): export the run again') from error


def describe(folder: pathlib.Path, spec: Mapping[str, Any]) -> Trained:
  """The export as a run without weights, which the compiled function has."""
  size = int(spec['input']['shape'][1])
  stored_size = next(name for name, longest in SIZES.items() if longest == spec['stored_longest'])
  tasks = {} if spec['kind'] == 'trunk' else {
    str(spec['task']): FittedTask(str(spec['kind']), '', dict(spec['about']), None, size, size)}
  config = ConfigDict({'trunk': FILE, 'data': {'size': size, 'stored_size': stored_size},
                       'tasks': {name: {'batch': EMBED_BATCH} for name in tasks}})
  return Trained(folder, config, str(spec['state']), int(spec['step']), {}, {}, tasks)


class ExportedModel(Model):
  """A `Model` whose function is compiled from StableHLO. Its temperature is part of the function."""

  def __init__(self, trained: Trained, task: str | None, thresholds: Mapping[str, float], call: Callable) -> None:
    super().__init__([trained], task)
    self.thresholds = thresholds
    self.mesh = make_mesh(jax.local_devices()[:1])  # it was exported for one device
    self.call = call

  @functools.cached_property
  def predictors(self) -> list[tuple[Callable, Any, Any]]:
    def predict(params: None, stats: None, batch: Mapping[str, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
      outputs = self.call(batch['image'])
      return batch, {name: rows for name, rows in outputs.items() if name not in EXTRA}
    return [(predict, None, None)]

  @functools.cached_property
  def compute_features(self) -> Callable[[np.ndarray], jax.Array]:
    def embed(images_BSS1: np.ndarray) -> jax.Array:
      outputs = self.call(images_BSS1)
      if 'embedding' not in outputs and 'features' not in outputs:
        raise ConfigError(f'{self.members[0].run} gives no features: embed with its run, or with an export of stage 1')
      return outputs['embedding'] if 'embedding' in outputs else outputs['features'].mean((1, 2))
    return embed
