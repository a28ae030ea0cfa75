"""Imports and exports trunk and heads with torchvision's parameter names, such as torchvision's own weights or MoCo's
release.

Our networks differ from torchvision's in three ways that can be converted exactly: the names of parameters and the
order of their axes (`torchvision_names.py`), and the stem, which has one grey input channel (`import_trunk`,
`export_trunk`). The grey stem is exact: on a grey image repeated over three channels, a convolution sees the sum of its
three kernels. Arrays in and out are NumPy's.
"""

import functools
import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax import nnx

from mtpret_jax.config.errors import show
from mtpret_jax.models.norm import EPSILON
from mtpret_jax.models.torchvision_names import (
  LAST_LAYERS,
  OTHER_HEADS,
  Tree,
  count_dilations,
  from_torch,
  list_head,
  name_head,
  name_in_torch,
  to_torch,
  torch_shape,
)
from mtpret_jax.models.trunk import TRUNKS, make_trunk
from mtpret_jax.models.weight_files import Path, read
from mtpret_jax.models.weight_names import has_no_epsilon, select_encoder

log = logging.getLogger(__name__)

STEMS = ('conv1.weight', 'features.conv0.weight')  # of a ResNet, of a DenseNet
Trees = tuple[dict[str, Any], dict[str, Any]]  # (params, stats): nested dicts of arrays


def import_trunk(source: Path | Mapping[str, np.ndarray], name: str) -> Trees:
  """Trunk `name` from a safetensors file or a dict of arrays: (params, stats), nested dicts of f32 arrays.

  The names may be those of other libraries, see `weight_names.py`. A three-channel stem is summed over its channels.
  Heads such as `fc.*` are left out. Batch norms without an epsilon get ours, with scales that make up for it.

  Raises:
    ValueError: a parameter is missing, unexpected, of the wrong shape or not finite; the message names the first one.
  """
  file = source if isinstance(source, Mapping) else read(source)
  weights = select_encoder(file)
  if has_no_epsilon(file):
    log.info('scales of batch norms converted, because torchvision sets their epsilon to 0 in detectors for COCO')
    weights |= scale_for_epsilon(weights)
  for stem in set(STEMS) & set(weights):
    if weights[stem].ndim == 4 and weights[stem].shape[1] == 3:
      exact = np.promote_types(weights[stem].dtype, np.float32)  # half precision would round the sum
      weights[stem] = weights[stem].astype(exact).sum(1, keepdims=True)
  params, stats = trunk_shapes(name)
  problem = find_mismatch(weights, params, stats)
  if problem:
    fits = [other for other in TRUNKS if not find_mismatch(weights, *trunk_shapes(other))]
    remedy = f'these are the weights of a {fits[0]}: set --config.trunk={fits[0]}' if fits else (
      f'{describe_blocks(weights)}give the state dict of a torchvision {name}')
    raise ValueError(f'{problem}; {remedy}')

  def take(path: tuple, _: Any) -> np.ndarray:
    return from_torch(to_finite(name_in_torch(path), weights[name_in_torch(path)]))
  return jax.tree.map_with_path(take, params), jax.tree.map_with_path(take, stats)


def scale_for_epsilon(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Scales with which (x - mean) / sqrt(var + EPSILON) gives what the scales of the file give with (x - mean) /
  sqrt(var). The variance itself cannot make up for it: var - EPSILON may be negative."""
  scales = {}
  for name, values in weights.items():
    scale = name.replace('running_var', 'weight')
    if name.endswith('running_var') and scale in weights and weights[scale].shape == values.shape:
      var = np.asarray(values, np.float64)
      ratio = np.divide(var + EPSILON, var, out=np.ones_like(var), where=var > 0)
      scales[scale] = np.asarray(weights[scale], np.float64) * np.sqrt(ratio)
  return scales


def import_head(weights: Mapping[str, np.ndarray], kind: str, params: Tree, stats: Tree) -> tuple[Trees, list[str]]:
  """The head of a task from a state dict of torchvision's model for this kind of task.

  Args:
    weights: with torchvision's names, without the prefix of the model, as `weight_names.select_head` gives them.
    params, stats: nested dicts of the head's arrays or shapes.

  Returns:
    ((params, stats), layers): nested dicts of f32 arrays, without the last layers whose shape differs, because the file
    has other classes or anchors. `layers` are torchvision's names of these.

  Raises:
    ValueError: any other array differs in shape, is missing or not finite; the message names the first one.
  """
  expected = {name: torch_shape(leaf.shape) for name, leaf in list_head(kind, params, stats)}
  last = {name.rpartition('.')[0] for name in expected if name.startswith(LAST_LAYERS[kind])}
  others = sorted({layer for layer in last for name in expected
                   if name.startswith(f'{layer}.') and find_difference(name, weights, expected)})
  kept = [name for name in expected if name.rpartition('.')[0] not in others]
  problem = next(filter(None, (find_difference(name, weights, expected) for name in kept)), '')
  spare = next((name for name in weights if name not in expected and not name.startswith(OTHER_HEADS)), None)
  if problem or spare is not None:
    raise ValueError(problem or f'{show(spare)[1:-1]} does not belong to such a head')
  dilations = count_dilations(params)

  def take(tree: Tree) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
      name = name_head(kind, path, dilations)
      if name in kept:
        *modules, leaf = [step.key for step in path]
        functools.reduce(lambda inner, key: inner.setdefault(key, {}), modules, taken)[leaf] = from_torch(
          to_finite(name, weights[name]), name)
    return taken
  return (take(params), take(stats)), others


def find_difference(name: str, weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> str:
  """What is wrong with a parameter of a head, or ''."""
  if name not in weights:
    return f'{name} of shape {expected[name]} is missing'
  shape = weights[name].shape
  return '' if shape == expected[name] else f'{name} has shape {shape}, but must have {expected[name]}'


def describe_blocks(weights: Mapping[str, np.ndarray]) -> str:
  """How many blocks each stage of a file's trunk has, for a message; '' if it has no stages."""
  number = re.compile(r'(?:layer|features\.denseblock)(\d)\.(?:denselayer)?(\d+)\.')
  blocks = {(int(match[1]), int(match[2])) for match in map(number.match, weights) if match}
  counts = [str(sum(stage == each for stage, _ in blocks)) for each in sorted({stage for stage, _ in blocks})]
  known = ', '.join(f'{name} {"-".join(map(str, depths))}' for name, (_, depths) in TRUNKS.items())
  return f'its stages have {"-".join(counts)} blocks ({known}); ' if blocks else ''


def to_finite(name: str, values: np.ndarray) -> np.ndarray:
  """The values as f32. Raises ValueError where one is not finite, or a running variance is negative."""
  with np.errstate(over='ignore', invalid='ignore'):
    numbers = np.asarray(values, np.float32)
  if not np.isfinite(numbers).all() or name.endswith('running_var') and (numbers < 0).any():
    raise ValueError(f'{name} has impossible values (NaN, infinite, or a negative variance): the file is damaged, or '
                     f'the run that wrote it diverged; use another file')
  return numbers


def export_trunk(params: Mapping[str, Any], stats: Mapping[str, Any], path: Path, channels: int = 1) -> None:
  """Writes the trunk as a safetensors file with torchvision's names and layouts, without `fc.*`.

  `channels=1` keeps the grey stem. `channels=3` repeats it, divided by three: the file then loads into an unchanged
  torchvision model (`strict=False`, because of `fc`) and gives the same features on a grey image repeated over its
  channels.
  """
  safetensors.numpy.save_file(name_trunk(params, stats, channels), path, metadata={'format': 'pt'})


def name_trunk(params: Mapping[str, Any], stats: Mapping[str, Any], channels: int) -> dict[str, np.ndarray]:
  """{torchvision's name: array in PyTorch's layout} of the trunk, as `export_trunk` writes it."""
  weights = {name_in_torch(at): to_torch(leaf) for tree in (params, stats)
             for at, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  stem = next(name for name in STEMS if name in weights)
  weights[stem] = np.repeat(weights[stem] / channels, channels, axis=1)
  return weights


@functools.cache
def trunk_shapes(name: str) -> Trees:
  """(params, stats) of trunk `name` as shapes; computes nothing."""
  if name not in TRUNKS:
    raise ValueError(f'unknown trunk {name!r}: choose one of {", ".join(TRUNKS)}')
  trunk = nnx.eval_shape(lambda: make_trunk(name, rngs=nnx.Rngs(0)))
  return nnx.to_pure_dict(nnx.state(trunk, nnx.Param)), nnx.to_pure_dict(nnx.state(trunk, nnx.BatchStat))


def find_mismatch(weights: Mapping[str, np.ndarray], params: Mapping[str, Any], stats: Mapping[str, Any]) -> str | None:
  """What is wrong with the first parameter that does not fit, or None."""
  expected = {name_in_torch(path): torch_shape(leaf.shape) for tree in (params, stats)
              for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  for name, shape in expected.items():
    if name not in weights:
      return f'{name} of shape {shape} is missing from the weights'
    if weights[name].shape != shape:
      return f'{name} has shape {weights[name].shape}, but must have {shape}{explain_axes(weights[name].shape, shape)}'
  spare = next((name for name in weights if name not in expected), None)
  return None if spare is None else f'{show(spare)[1:-1]} of shape {weights[spare].shape} does not belong to the trunk'


def explain_axes(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
  """A note on a kernel in TensorFlow's order of axes; '' for others."""
  if len(shape) == len(expected) == 4 and shape[:2] == expected[2:] and shape[3] == expected[0]:
    return ' (it has the order height, width, in, out of TensorFlow; PyTorch has out, in, height, width)'
  return ''
