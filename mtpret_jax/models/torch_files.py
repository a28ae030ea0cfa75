"""Reads the tensors in a file that `torch.save` wrote (.pth, .pt, .bin, .ckpt, .pth.tar), without torch. No code in the
file runs (`pickled.py`).

Since torch 1.6 such a file is an uncompressed zip archive: `NAME/data.pkl` is the pickle, `NAME/data/KEY` a storage,
and `NAME/byteorder` is 'little' or 'big'. Before, it was a sequence of pickles (a magic number, a version, the machine,
the value, the keys of the storages), followed by each storage's length and numbers.
"""

import dataclasses
import io
import logging
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mtpret_jax.config.errors import show
from mtpret_jax.models.pickled import Machine, Storage, Tensor, read_pickle
from mtpret_jax.models.weight_names import list_names

ZIP = b'PK\x03\x04'
LEGACY = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # the magic number in a pickle, behind two bytes for the protocol
LEGACY_VERSION = 1001
# Of torch's storages: the name in safetensors, and NumPy's type.
TYPES: dict[str, tuple[str, type]] = {
  'torch.DoubleStorage': ('F64', np.float64), 'torch.FloatStorage': ('F32', np.float32),
  'torch.HalfStorage': ('F16', np.float16), 'torch.BFloat16Storage': ('BF16', ml_dtypes.bfloat16),
  'torch.LongStorage': ('I64', np.int64), 'torch.IntStorage': ('I32', np.int32),
  'torch.ShortStorage': ('I16', np.int16), 'torch.CharStorage': ('I8', np.int8),
  'torch.ByteStorage': ('U8', np.uint8), 'torch.BoolStorage': ('BOOL', np.bool_),
  'torch.ComplexFloatStorage': ('C64', np.complex64), 'torch.ComplexDoubleStorage': ('C128', np.complex128),
  'torch.QInt8Storage': ('I8', np.int8), 'torch.QUInt8Storage': ('U8', np.uint8),
  'torch.QInt32Storage': ('I32', np.int32)}
INTERNAL = ('_modules', '_parameters', '_buffers')  # how a pickled nn.Module stores what its state dict names
MAX_PICKLE = 2**26  # bytes
MAX_ENTRIES, MAX_NAME, MAX_DEPTH = 100_000, 1000, 50  # entries of all dicts, characters of a name, dicts in a dict
MAX_AXES = 16

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TorchFile:
  """What a file holds: {name with the names of the dicts around it: tensor}, and how to read all numbers
  (N,) of a storage's key, of which the storage may be a part."""

  tensors: Mapping[str, Tensor]
  read_storage: Callable[[Storage], np.ndarray]
  kept: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # by key: many tensors may share a storage

  def read(self, name: str) -> np.ndarray:
    """The tensor of this name, contiguous. Raises ValueError, EOFError or BadZipFile if the file is damaged."""
    tensor = self.tensors[name]
    storage = tensor.storage
    if storage.key not in self.kept:
      self.kept[storage.key] = self.read_storage(storage)
    numbers = self.kept[storage.key][storage.offset:storage.offset + storage.count]
    if len(numbers) < storage.count:
      raise ValueError(f'its storage {show(storage.key)} is too short')
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride, strict=True))
    if math.prod(tensor.shape) and last >= len(numbers):
      raise ValueError(f'{show(name)} reaches beyond the {len(numbers):,} numbers of its storage')
    strides = [stride * numbers.itemsize for stride in tensor.stride]
    array = np.lib.stride_tricks.as_strided(numbers[tensor.offset:], tensor.shape, strides)
    return array if array.flags.c_contiguous else array.copy()


def is_torch_file(path: str | os.PathLike) -> bool:
  """Whether a file begins as those of `torch.save` do. Other zip files do so too."""
  with open(path, 'rb') as file:
    start = file.read(32)
  return start.startswith(ZIP) or LEGACY in start


def open_file(file: BinaryIO) -> TorchFile:
  """Reads the names and shapes of the tensors, but no numbers yet.

  Raises:
    ValueError, EOFError, BadZipFile: the file is damaged, or `torch.save` did not write it.
  """
  is_zip = file.read(len(ZIP)) == ZIP
  file.seek(0)
  return open_zip(file) if is_zip else open_legacy(file)


def open_zip(file: BinaryIO) -> TorchFile:
  archive = zipfile.ZipFile(file)
  members = {member.filename: member for member in archive.infolist()}
  roots = [name.removesuffix('data.pkl') for name in members if name.endswith('data.pkl')]
  if len(roots) != 1:
    raise ValueError('it is a zip file, but not one that torch.save wrote: data.pkl is missing in it')
  root = roots[0]
  if f'{root}constants.pkl' in members:
    raise ValueError('it is a TorchScript model: save its weights with torch.save(torch.jit.load(FILE).state_dict(), '
                     'NEW_FILE)')
  # torch.save does not compress, so nothing in its files is larger than the file. A compressed file may be a zip bomb.
  packed = next((name for name, member in members.items() if member.compress_type != zipfile.ZIP_STORED), None)
  if packed is not None:
    raise ValueError(f'{show(packed)} in it is compressed, which torch.save does not do: load and save it with torch')
  if members[f'{root}data.pkl'].file_size > MAX_PICKLE:
    raise ValueError(f'its pickle has more than {MAX_PICKLE:,} bytes')
  order = archive.read(f'{root}byteorder') if f'{root}byteorder' in members else b'little'
  tensors = list_tensors(read_pickle(io.BytesIO(archive.read(f'{root}data.pkl'))))
  for storage in (tensor.storage for tensor in tensors.values()):
    member = members.get(f'{root}data/{storage.key}')
    # In this format no storage is a part of another one.
    if member is None or storage.offset or member.file_size != storage.count * find_dtype(storage).itemsize:
      raise ValueError(f'its storage {show(storage.key)} is missing or has another size')

  def read_storage(storage: Storage) -> np.ndarray:
    return to_numbers(storage, archive.read(f'{root}data/{storage.key}'), order == b'big')  # `read` checks the CRC
  return TorchFile(tensors, read_storage)


def open_legacy(file: BinaryIO) -> TorchFile:
  start = io.BytesIO(file.read(MAX_PICKLE))
  _, version, system, machine, keys = (read_pickle(start) for _ in range(5))
  if version.value != LEGACY_VERSION or not isinstance(system.value, dict) or not isinstance(keys.value, list):
    raise ValueError('its format is not known')
  is_big = not system.value.get('little_endian', True)
  places, place = {}, start.tell()
  for key in keys.value:
    if not isinstance(key, str) or key not in machine.storages:
      raise ValueError(f'its storage {show(key)} is not used')
    file.seek(place)
    count = int.from_bytes(file.read(8), 'big' if is_big else 'little')
    places[key] = place + 8, count
    place += 8 + count * find_dtype(machine.storages[key]).itemsize

  def read_storage(storage: Storage) -> np.ndarray:
    if storage.key not in places:
      raise ValueError(f'its storage {show(storage.key)} is missing')
    place, count = places[storage.key]
    size = count * find_dtype(storage).itemsize
    if place + size > file.seek(0, os.SEEK_END):  # before memory is allocated
      raise EOFError
    file.seek(place)
    return to_numbers(storage, file.read(size), is_big)
  return TorchFile(list_tensors(machine), read_storage)


def find_dtype(storage: Storage) -> np.dtype:
  if storage.kind not in TYPES:
    raise ValueError(f'its storage {show(storage.key)} is of an unknown type, {show(storage.kind)}')
  return np.dtype(TYPES[storage.kind][1])


def to_numbers(storage: Storage, data: bytes, is_big: bool) -> np.ndarray:
  """All numbers (N,) in the bytes of a storage's key."""
  dtype = find_dtype(storage)
  numbers = np.frombuffer(data, np.dtype(f'u{dtype.itemsize}'))
  return (numbers.byteswap() if is_big != (sys.byteorder == 'big') else numbers).view(dtype)


def list_tensors(machine: Machine) -> dict[str, Tensor]:
  """{name with the names of the dicts around it: tensor}. Raises ValueError if a tensor's shape is impossible, or the
  dicts have no end."""
  if machine.unknown:
    log.info('the pickle names %s: nothing of this was imported or run', list_names(machine.unknown))
  found: dict[str, Tensor] = {}
  # Dicts may share and contain each other, so a small pickle could have endlessly many names.
  for number, (name, value) in enumerate(walk(machine.value, '', 0)):
    if number > MAX_ENTRIES:
      raise ValueError(f'its dicts have more than {MAX_ENTRIES:,} entries')
    if isinstance(value, Tensor) and value.storage.kind in TYPES:
      check_shape(name, value)
      found[name] = value
  return found


def walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
  """(name, value) of a value and of all entries of the dicts in it."""
  yield name, value
  for key, inner in value.items() if isinstance(value, dict) else ():
    inner_name = '.'.join(part for part in (name, '' if key in INTERNAL else str(key)) if part)
    if depth >= MAX_DEPTH or len(inner_name) > MAX_NAME:
      raise ValueError(f'the names of its tensors are too long, such as {show(inner_name)}')
    yield from walk(inner, inner_name, depth + 1)


def check_shape(name: str, tensor: Tensor) -> None:
  numbers = (tensor.offset, tensor.storage.offset, tensor.storage.count, *tensor.shape, *tensor.stride)
  if len(tensor.shape) != len(tensor.stride) or len(tensor.shape) > MAX_AXES or not all(
      type(number) is int and 0 <= number < 2**48 for number in numbers):
    raise ValueError(f'{show(name)} has an impossible shape')
