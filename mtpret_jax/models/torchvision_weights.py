"""The trunk in and out of files with torchvision's parameter names, such as torchvision's own weights and MoCo's.

Our trunk and torchvision's differ in three mechanical things: the names (`name_in_torch`), the order of a kernel's
axes (`to_torch`, `from_torch`), and the stem, which here has one grey channel (`import_trunk`, `export_trunk`). The
grey channel is exact: on a grey image repeated over three channels, a convolution sees the sum of its three kernels.
Arrays in and out are NumPy's.
"""

import functools
import logging
import math
import pathlib
import shlex

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from mtpret_jax.config.errors import show
from mtpret_jax.models.resnet import LAYERS, ResNet

STEM = 'conv1.weight'
MARK = 'layer1.0.conv1.weight'  # in every ResNet; what stands before it in a file is the file's prefix
REAL, COUNTS = {'F64', 'F32', 'F16'}, {'I64', 'I32'}  # counts are PyTorch's of its batches, which nothing here needs
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
CONVERT = ("python -c \"import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], weights_only=True); "
           "s.save_file({k: v.contiguous() for k, v in d.get('state_dict', d).items()}, sys.argv[2])\" "
           "{path} {target}")


LARGEST = 2**32  # bytes in a file: the release of MoCo, two encoders and a queue, has 0.3 GB


def import_trunk(source, name):
  """Trunk `name` from a safetensors file (its path) or a dict of arrays: (params, stats), nested dicts, f32.

  The names may have a prefix: what stands before `layer1.0.conv1.weight`. Of several, as in MoCo's release with its
  two encoders, the one ending in `encoder_q.` is taken. A three-channel stem is summed over its channels. The
  classifier `fc.*` is left out. Raises ValueError, naming the first parameter that does not fit.
  """
  weights = strip_prefix(source if isinstance(source, dict) else read(source))
  if STEM in weights and weights[STEM].ndim == 4 and weights[STEM].shape[1] == 3:
    weights[STEM] = weights[STEM].sum(1, keepdims=True)
  params, stats = trunk_shapes(name)
  problem = find_mismatch(weights, params, stats)
  if problem:
    fits = [other for other in LAYERS if not find_mismatch(weights, *trunk_shapes(other))]
    remedy = f"these are the weights of a {fits[0]}: set config.trunk='{fits[0]}'" if fits else (
      f'give the state dict of a torchvision {name}')
    raise ValueError(f'{problem}; {remedy}')

  def take(path, _):
    return from_torch(check_numbers(name_in_torch(path), weights[name_in_torch(path)]))
  return jax.tree.map_with_path(take, params), jax.tree.map_with_path(take, stats)


def check_numbers(name, values):
  """The values of a parameter; raises ValueError where they are none, or a variance is negative."""
  with np.errstate(over='ignore', invalid='ignore'):
    numbers = np.asarray(values, np.float32)
  if not np.isfinite(numbers).all() or name.endswith('running_var') and (numbers < 0).any():
    raise ValueError(f'{name} has values that cannot be (NaN, infinite, or a negative variance): the file is damaged, '
                     f'or of a run that went wrong; take another')
  return numbers


def export_trunk(params, stats, path, channels=1):
  """Writes the trunk as a safetensors file of torchvision's names and layouts, without `fc.*`.

  `channels=1` leaves the stem grey. `channels=3` repeats it, divided by three: the file then loads into an unchanged
  torchvision model (`strict=False`, for `fc`) and gives the same features on a grey image repeated over its channels.
  """
  weights = {name_in_torch(at): to_torch(leaf) for tree in (params, stats)
             for at, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  weights[STEM] = np.repeat(weights[STEM] / channels, channels, axis=1)
  safetensors.numpy.save_file(weights, path, metadata={'format': 'pt'})


def name_in_torch(path):
  """torchvision's name for one of our leaves, given its jax key path. Ours -> torchvision's, by example:
  norm1/mean -> bn1.running_mean; stages/0/1/conv2/kernel -> layer1.1.conv2.weight;
  stages/3/0/shortcut/norm/scale -> layer4.0.downsample.1.weight."""
  *modules, leaf = [step.key for step in path]
  words = []
  while modules:
    word = modules.pop(0)
    if word == 'stages':
      words.append(f'layer{int(modules.pop(0)) + 1}')
    elif word == 'shortcut':
      words += ['downsample', {'conv': '0', 'norm': '1'}[modules.pop(0)]]
    else:
      words.append(str(word).replace('norm', 'bn'))
  return '.'.join([*words, LEAVES[leaf]])


def to_torch(leaf):
  """Kernels from (height, width, in, out) to PyTorch's (out, in, height, width); f32, its own memory."""
  leaf = np.asarray(leaf, np.float32)
  return np.ascontiguousarray(leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf)


def from_torch(leaf):
  leaf = np.asarray(leaf, np.float32)
  return np.ascontiguousarray(leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf)


def check_kind(path):
  """Raises ValueError for what is no .safetensors file by its name, or no file."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'{path} is no file: give a .safetensors file, or the workdir of a run')
  if path.suffix != '.safetensors':  # a pickle can run anything
    command = CONVERT.replace('{path}', shlex.quote(str(path))).replace(
      '{target}', shlex.quote(str(path.with_suffix('.safetensors'))))
    raise ValueError(f'{path} is not a .safetensors file; where torch is installed, convert it with: {command}')


def read(path):
  """{name: array} of a safetensors file. Its header is looked at before any memory is taken. Raises ValueError."""
  check_kind(path)
  try:
    with safetensors.safe_open(path, 'np') as file:
      slices = {name: file.get_slice(name) for name in file.keys()}
      size = sum(math.prod(part.get_shape()) for part in slices.values())
      if 2 * size > LARGEST:
        raise ValueError(f'holds {size:,} numbers, too many for a trunk: give the weights alone')
      odd = next((name for name, part in slices.items() if part.get_dtype() not in REAL | COUNTS), None)
      if odd is not None:
        raise ValueError(f'{show(odd)} is of type {slices[odd].get_dtype()}, must be one of {", ".join(sorted(REAL))}')
      return {name: file.get_tensor(name) for name, part in slices.items() if part.get_dtype() in REAL}
  except BaseException as error:  # safetensors' own, whatever NumPy makes of a type, and Rust's where memory is short
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    raise ValueError(f'{path} cannot be read: {error}') from error


def strip_prefix(weights):
  """The parameters of one encoder by their bare names; `fc.*` and the counters of batches are left out."""
  prefixes = [name.removesuffix(MARK) for name in weights if name.endswith(MARK)]
  queries = [prefix for prefix in prefixes if prefix.endswith('encoder_q.')]
  if len(prefixes) > 1 and len(queries) == 1:
    prefixes = queries
  if len(prefixes) != 1:
    raise ValueError(f'{len(prefixes)} encoders in the file (parameters that end in {MARK}: prefixes '
                     f'{show(prefixes)}), must be one, or one that ends in encoder_q.; leave one in')
  bare = {name.removeprefix(prefixes[0]): value for name, value in weights.items() if name.startswith(prefixes[0])}
  ignored = [name for name in bare if name.startswith('fc.')]
  if ignored:
    logging.info('left out the classifier: %s', show(', '.join(ignored))[1:-1])
  return {name: value for name, value in bare.items()
          if name not in ignored and not name.endswith('num_batches_tracked')}


@functools.cache
def trunk_shapes(name):
  """(params, stats) of trunk `name` as shapes, nothing computed."""
  if name not in LAYERS:
    raise ValueError(f'unknown trunk {name!r}; have {", ".join(LAYERS)}')
  trunk = nnx.eval_shape(lambda: ResNet(name, rngs=nnx.Rngs(0)))
  _, params, stats = nnx.split(trunk, nnx.Param, nnx.BatchStat)
  return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def find_mismatch(weights, params, stats):
  """What is wrong with the first parameter that does not fit, or None."""
  wanted = {name_in_torch(path): torch_shape(leaf.shape) for tree in (params, stats)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  for name, shape in wanted.items():
    if name not in weights:
      return f'{name} of shape {shape} is missing from the weights'
    if weights[name].shape != shape:
      return f'{name} has shape {weights[name].shape}, must have {shape}'
  spare = next((name for name in weights if name not in wanted), None)
  return None if spare is None else f'{show(spare)[1:-1]} of shape {weights[spare].shape} has no place in the trunk'


def torch_shape(shape):
  return tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else tuple(shape)
