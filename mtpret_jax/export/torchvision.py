"""A model for torchvision: its weights under torchvision's names, and what `load_in_torch.py` needs to build it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.export.trained import Trained
from mtpret_jax.models.torchvision_names import DENSE, TRUNK_PREFIX, export_head
from mtpret_jax.models.torchvision_weights import name_trunk
from mtpret_jax.runtime.atomic_io import write_atomically, write_json
from tfds_builders.common.dataset import SIZES

MODEL, TRUNK_FILE, SPEC = 'model.safetensors', 'trunk.safetensors', 'torchvision.json'
SCRIPT = pathlib.Path(__file__).with_name('load_in_torch.py')
NEW_COUNTER = np.zeros((), np.int64)  # of batches that a batch norm has seen, which PyTorch keeps beside its statistics


def write(trained: Trained, task: str | None, folder: pathlib.Path, channels: int = 3) -> None:
  """Writes the weights, the trunk alone, the description of the network and the script that uses them.

  Args:
    task: whose head is exported; None after stage 1, which has none.
    channels: of the images. The network takes grey images: with 3, in three equal channels.

  Raises:
    ConfigError: torchvision has no head for this kind of task.
  """
  trunk = add_counters(name_trunk(*trained.take_trunk(task), channels))
  save(folder / TRUNK_FILE, trunk)
  if task is not None:
    save(folder / MODEL, name_model(trained, task, trunk))
  write_json(folder / SPEC, describe(trained, task, channels))
  write_atomically(folder / SCRIPT.name, SCRIPT.read_bytes())


def name_model(trained: Trained, task: str, trunk: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """{torchvision's name: array} of the trunk and the head of a task: the state dict of `load_in_torch.build`."""
  kind = trained.tasks[task].kind
  if kind not in TRUNK_PREFIX:
    raise ConfigError(f'torchvision has no head for {kind}, the kind of the task {task}: export with --to=safetensors')
  head = export_head(kind, *trained.take_head(task))
  if any(name.startswith(DENSE) for name in trunk):
    head = {name.replace('fc.', 'classifier.'): array for name, array in head.items()}
  return {f'{TRUNK_PREFIX[kind]}{name}': array for name, array in trunk.items()} | add_counters(head)


def add_counters(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The weights with `num_batches_tracked` of each batch norm, which a state dict of PyTorch has, too."""
  means = [name for name in weights if name.endswith('.running_mean')]
  return dict(weights) | {name.replace('running_mean', 'num_batches_tracked'): NEW_COUNTER for name in means}


def save(path: pathlib.Path, weights: dict[str, np.ndarray]) -> None:
  write_atomically(path, safetensors.numpy.save(weights, metadata={'format': 'pt'}))


def describe(trained: Trained, task: str | None, channels: int) -> dict[str, Any]:
  """The content of `torchvision.json`; `load_in_torch.py` says how it is used.

    kind                 of task; 'trunk' after stage 1
    trunk                torchvision's name of the trunk
    channels             of the images: 3 equal ones, or 1
    weights              file of the state dict
    stored_longest       px: the longer side of a stored image is at most this; null: as in the file
    size, view           px: sides of the square that is read, and of the one that the network sees
    flips                whether a prediction is the mean of an image and its mirror image
    mirror               the class that each class becomes in a mirror image; null if none changes
    temperature          what the logits of a classification are divided by
    about                names of findings, classes and the value
    head                 config of the head
  """
  config, fitted = trained.config, trained.tasks[task] if task else None
  model = fitted.make_model() if fitted else None
  return {
    'kind': fitted.kind if fitted else 'trunk', 'trunk': config.trunk, 'channels': channels,
    'weights': MODEL if fitted else TRUNK_FILE, 'stored_longest': SIZES[config.data.stored_size],
    'size': fitted.size if fitted else config.data.size, 'view': fitted.view if fitted else config.augment.size,
    'flips': bool(config.get('flips', False)) and model is not None and model.merge is not None,
    'mirror': list(model.mirror) if model is not None and model.mirror is not None else None,
    'temperature': trained.read_temperature(task),
    'about': {field: fitted.about[field] for field in ('findings', 'relation', 'value', 'mask', 'box_classes')
              if field in fitted.about} if fitted else {},
    'head': fitted.head.to_dict() if fitted and fitted.head is not None else {}}
