"""Damaged, foreign and hostile weights files as `init_from` of a run.

Accepted outcomes are a trunk of the right shapes with finite numbers, or a ConfigError of one line. A pickle in a file
must never run; if it does, it makes a folder, the canary.
"""

import io
import json
import logging
import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict

from benchmarks.fuzz import judge, torch_weights, values
from benchmarks.fuzz import raw as raws
from benchmarks.fuzz.values import Report, Run

NAME = 'resnet18'
CANARY = 'canary'
LENGTHS = (0, 1, 2, 7, 99, 10**8, 2**31, 2**32, 2**63, 2**64 - 1)
SHAPES = ([], [0], [1], [-1], [2**62], [2**31, 2**31], [10**6, 10**6], [1] * 40, [1.5], ['a'], None, 'x', [[1]], [True])
TYPES = ('F64', 'F16', 'BF16', 'I64', 'I8', 'U8', 'BOOL', 'C64', 'F8_E4M3', 'F4', 'f32', '', None, 3, 'x' * 999)
ENDINGS = ('.safetensors', '.pth', '.pt', '.bin', '.npz', '.h5', '.SAFETENSORS', '')


class Payload:
  """Its pickle makes the canary when it is loaded."""

  def __reduce__(self) -> tuple:
    return os.mkdir, (CANARY,)


def make(folder: pathlib.Path) -> Run:
  """Cases of weights files."""
  from benchmarks.fuzz import small
  small.shrink()
  logging.getLogger('mtpret_jax').setLevel(logging.CRITICAL)
  from mtpret_jax.models import torchvision_weights
  rng = np.random.default_rng(0)
  shapes = torchvision_weights.trunk_shapes(NAME)
  arrays = jax.tree.map(lambda leaf: np.abs(rng.normal(size=leaf.shape)).astype(np.float32), shapes)
  folder.mkdir(exist_ok=True)
  torchvision_weights.export_trunk(*arrays, folder / 'whole.safetensors')
  whole = (folder / 'whole.safetensors').read_bytes()
  torch_weights.write_whole(folder, safetensors.numpy.load(whole))
  return lambda rng, case, report: run(rng, case, report, whole, shapes, folder)


def run(rng: np.random.Generator, case: pathlib.Path, report: Report, whole: bytes, shapes: Any,
        folder: pathlib.Path) -> str:
  from mtpret_jax.config.errors import ConfigError
  from mtpret_jax.runtime import initial_weights
  kind = values.pick(rng, tuple(KINDS))
  anything = kind in ('weights: other kind', 'weights: pickle')
  ending = values.pick(rng, ENDINGS) if anything else '.pth' if kind in torch_weights.KINDS else '.safetensors'
  path = case / f'weights{ending}'
  report((ending or 'no ending', kind))
  if kind in torch_weights.KINDS:
    whole = (folder / values.pick(rng, torch_weights.FILES)).read_bytes()
  KINDS[kind](rng, path, whole)
  init = values.pick(rng, ('imagenet', 'moco', 'other'))
  config = ConfigDict(dict(init=init, init_from=str(path), trunk=values.pick(rng, (NAME, NAME, NAME, 'resnet50'))))
  before = os.getcwd()
  os.chdir(case)
  try:
    params, stats = initial_weights.read_initial_weights(config)['trunk']
  except ConfigError as error:
    judge.judge_line(str(error))
    judge.demand(str(path) in str(error), f'names no file: {error}')
    outcome = 'refused'
  else:
    outcome = 'whole'
    judge_trunk((params, stats), shapes)
  finally:
    os.chdir(before)
  judge.demand(not (case / CANARY).exists(), 'the pickle ran')
  return outcome


def judge_trunk(trunk: Any, shapes: Any) -> None:
  same = jax.tree.map(lambda leaf, shape: leaf.shape == shape.shape and leaf.dtype == np.float32
                      and np.isfinite(leaf).all(), trunk, shapes)
  judge.demand(jax.tree.structure(trunk) == jax.tree.structure(shapes) and all(jax.tree.leaves(same)),
               'a trunk of wrong shapes or with values that are not finite')


def split(whole: bytes) -> tuple[dict, bytes]:
  """(header, bytes of the arrays) of a safetensors file."""
  length, = struct.unpack('<Q', whole[:8])
  return json.loads(whole[8:8 + length]), whole[8 + length:]


def join(header: Any, data: bytes, length: int | None = None) -> bytes:
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text) if length is None else length) + text + data


def flip_bytes(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  path.write_bytes(values.pick(rng, tuple(raws.KINDS.values()))(rng, whole))


def lie_length(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  header, data = split(whole)
  path.write_bytes(join(header, data, values.pick(rng, LENGTHS)))


def lie_entry(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """A wrong type, shape or offset of a parameter."""
  header, data = split(whole)
  names = [name for name in header if name != '__metadata__']
  entry = header[values.pick(rng, names)]
  way = rng.integers(5)
  if way == 0:
    entry['dtype'] = values.pick(rng, TYPES)
  elif way == 1:
    entry['shape'] = values.pick(rng, SHAPES)
  elif way == 2:
    entry['data_offsets'] = values.pick(rng, (
      [0, 0], [-1, 5], [5, 1], [0, 2**63], [1], [], None, 'x', [0.5, 2],
      header[values.pick(rng, names)]['data_offsets']))
  elif way == 3:
    entry.pop(values.pick(rng, tuple(entry)))
  else:
    header[values.pick(rng, names)] = values.pick(rng, values.LEAVES)
  path.write_bytes(join(header, data))


def lie_json(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  header, data = split(whole)
  text = json.dumps(header).encode()
  path.write_bytes(join(values.pick(rng, (
    b'[' * 100_000, b'{}', b'[]', b'null', b'{"a":', text[:-1], text * 2, b'\xff\xfe' + text, text.replace(b'"', b"'"),
    text.replace(b'F32', b'F64'), b'{"__metadata__": 5}', b'{"__metadata__": {"a": 5}}', b' ' * 999 + text,
    b'{"a": ' * 5000 + b'1' + b'}' * 5000)), data))


def sparse(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """A header of a huge array, and a sparse file of that length."""
  side = values.pick(rng, (2**14, 2**17, 2**19))
  path.write_bytes(join({'layer1.0.conv1.weight': {'dtype': 'F32', 'shape': [side, side],
                                                   'data_offsets': [0, 4 * side * side]}}, b''))
  os.truncate(path, path.stat().st_size + 4 * side * side)


def rename(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """Parameters missing, too many, under other names or prefixes, of another shape or type."""
  arrays = safetensors.numpy.load(whole)
  name = values.pick(rng, tuple(arrays))
  array, way = arrays[name], rng.integers(7)
  if way == 0:
    del arrays[name]
  elif way == 1:
    arrays[values.pick(rng, ('', ' ', 'fc.weight', 'x' * 9000, 'a\nb', '🩻', '\ufeff', 'layer9.x', 'conv1.weight.x',
                             'a.layer1.0.conv1.weight', '../x', 'num_batches_tracked'))] = np.ones(3, np.float32)
  elif way == 2:
    prefix = values.pick(rng, ('module.', 'encoder_q.', 'a\nb.', 'x' * 3000, '.'))
    arrays = {prefix + name: array for name, array in arrays.items()}
  elif way == 3:
    arrays[name] = array.reshape(-1) if array.ndim > 1 else array[:-1]
  elif way == 4:
    arrays[name] = array.astype(values.pick(rng, (np.float64, np.float16, np.int8, np.int64, bool, np.uint8)))
  elif way == 5:
    arrays |= {f'{prefix}{name}': array for prefix in ('encoder_q.', 'encoder_k.')[:rng.integers(1, 3)]
               for name, array in dict(arrays).items()}
  else:
    arrays = values.pick(rng, ({}, {name: array}, {'conv1.weight': np.ones((), np.float32)}))
  path.write_bytes(safetensors.numpy.save(arrays))


def spoil_numbers(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """NaN, infinity, a number that overflows float32, or a negative variance."""
  arrays = safetensors.numpy.load(whole)
  name = values.pick(rng, tuple(arrays))
  array = arrays[name].astype(np.float64 if rng.random() < 0.3 else np.float32)
  with np.errstate(all='ignore'):
    array.reshape(-1)[rng.integers(array.size)] = values.pick(rng, (np.nan, np.inf, -np.inf, 1e300, -1, 0, 1e-320))
  arrays[name] = array
  path.write_bytes(safetensors.numpy.save(arrays))


def write_pickle(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """A pickle with a payload: bare, or as PyTorch and NumPy pack it."""
  harm, way = pickle.dumps(Payload()), rng.integers(4)
  if way == 0:
    path.write_bytes(harm)
  elif way == 1:
    with zipfile.ZipFile(path, 'w') as file:
      file.writestr('archive/data.pkl', harm)
      file.writestr('archive/version', '3')
  elif way == 2:
    out = io.BytesIO()
    np.save(out, np.array([Payload()], object), allow_pickle=True)
    path.write_bytes(out.getvalue())
  else:
    path.write_bytes(struct.pack('<Q', len(harm)) + harm + whole)


def other_kind(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """Another kind of file, something that is not a file, or good weights under another ending."""
  way = rng.integers(7)
  if way == 0:
    path.mkdir()
    if rng.random() < 0.5:
      (path / 'model.safetensors').write_bytes(whole)
  elif way == 1:
    os.mkfifo(path)
  elif way == 2:
    path.symlink_to(values.pick(rng, ('nowhere', path.name, '/dev/zero', '/dev/null', '.', '/dev/tty')))
  elif way == 3:
    path.write_bytes(b'')
  elif way == 4:
    np.savez(path.open('wb'), a=np.ones(3))
  elif way == 5:
    path.write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(99))
  else:
    path.write_bytes(whole)


def under_other(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """A good file behind a link, or with more data than its header says."""
  if rng.random() < 0.5:
    (path.parent / 'there').write_bytes(whole)
    path.symlink_to('there')
  else:
    path.write_bytes(whole + values.some_bytes(rng, 999))


KINDS = {**torch_weights.KINDS,
         'weights: damaged': flip_bytes, 'weights: length lies': lie_length, 'weights: entry lies': lie_entry,
         'weights: JSON lies': lie_json, 'weights: sparse': sparse, 'weights: other names': rename,
         'weights: no numbers': spoil_numbers, 'weights: pickle': write_pickle, 'weights: other kind': other_kind,
         'weights: linked, longer': under_other}
