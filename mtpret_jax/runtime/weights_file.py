"""The weights of a run in one file, `weights.safetensors`, without the optimiser: what an exported run has in place of
checkpoints.

The names of its arrays are their paths in the train state: `params/trunk/conv1/kernel`, `stats/trunk/lung/norm1/mean`.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from mtpret_jax.config.errors import ConfigError, as_line
from mtpret_jax.runtime.atomic_io import write_atomically
from mtpret_jax.runtime.checkpoint import restore_list_indices

FILE = 'weights.safetensors'
PARTS = ('params', 'stats')
KEY = 'mtpret_jax'  # of the metadata: a single one, since the library writes several in an order that varies


def write_weights(folder: str | pathlib.Path, params: Mapping[str, Any], stats: Mapping[str, Any],
                  metadata: Mapping[str, str]) -> pathlib.Path:
  """Writes params and running statistics, nested dicts of arrays, to FILE in `folder`. Returns the path."""
  arrays = {jax.tree_util.keystr(path, simple=True, separator='/'): np.ascontiguousarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(dict(zip(PARTS, (params, stats), strict=True)))}
  path = pathlib.Path(folder, FILE)
  write_atomically(path, safetensors.numpy.save(arrays, metadata={KEY: json.dumps(dict(metadata))}))
  return path


def read_weights(folder: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, str]]:
  """(state, metadata) of FILE in `folder`. The state has what predictions need, in the places of
  `checkpoint.read_state`: `step`, `params` and `carry`, whose only entry is `stats`.

  Raises:
    ConfigError: the file is damaged, or not one of `write_weights`.
    FileNotFoundError: there is none.
  """
  path, tree = pathlib.Path(folder, FILE), dict[str, Any]()
  if not path.is_file():
    raise FileNotFoundError(f'{folder} has no {FILE}')
  try:
    with safetensors.safe_open(path, 'np') as file:
      metadata = json.loads((file.metadata() or {})[KEY])
      step = int(metadata['step'])
      for name in file.keys():
        *parents, last = name.split('/')
        place = tree
        for parent in parents:
          place = place.setdefault(parent, {})
        place[last] = file.get_tensor(name)
    params, stats = (restore_list_indices(tree.get(part, {})) for part in PARTS)
  # A damaged file raises errors of safetensors or NumPy, or a Rust panic, which is not an Exception.
  except BaseException as error:
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    raise ConfigError(f'{path} is damaged, or was not written by mtpret_jax.export ({as_line(error)}): export the run '
                      f'again') from error
  # A file has no empty dicts, which heads without batch norm have as their statistics.
  return {'step': step, 'params': params, 'carry': {'stats': {part: stats.get(part, {}) for part in params}}}, metadata
