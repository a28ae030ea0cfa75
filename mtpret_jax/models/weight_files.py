"""Reads files of weights: safetensors, and what `torch.save` writes. No code in a file runs."""

import contextlib
import dataclasses
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping

import ml_dtypes  # noqa: F401
import numpy as np
import safetensors

from mtpret_jax.config.errors import show
from mtpret_jax.models import torch_files

FLOATS = {'F64', 'F32', 'F16', 'BF16'}  # for BF16, NumPy needs the type that importing ml_dtypes gives it
PARAMETERS = ('weight', 'bias', 'running_mean', 'running_var')  # what a trunk's parameters are called
MAX_BYTES = 2**32  # of a file; MoCo's release, with two encoders and a queue, has 0.3 GB
ENDING = '.safetensors'
ENDINGS = (ENDING, '.pth', '.pt', '.bin', '.ckpt', '.tar')  # usual ones; only the first is needed to read a file
FORMATS = 'a .safetensors file, or one that torch.save wrote, such as .pth'
HDF5 = b'\x89HDF\r\n\x1a\n'  # the first bytes of Keras' .h5 files; .keras files are zip files with one inside
KERAS = ('is a file of Keras. Its ResNet-50 is another network than torchvision\'s (strides elsewhere, biases in its '
         'convolutions), so its weights cannot be used: give weights for PyTorch, which RadImageNet has too')

NO_TEXT: dict[type, str] = {EOFError: 'it ends too early', MemoryError: 'it does not fit into the memory'}

Path = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class Weights:
  """An open file of weights.

  Attributes:
    types: {name: type of its numbers}, such as 'F32'.
    shapes: {name: shape}.
    load: name -> array. Reads it.
  """

  types: Mapping[str, str]
  shapes: Mapping[str, tuple[int, ...]]
  load: Callable[[str], np.ndarray]


def check_file(path: Path) -> None:
  """Raises ValueError if `path` is not a file, or begins like none of the FORMATS."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'{path} is not a file: give {FORMATS}, or the workdir of a run')
  if path.suffix.lower() == ENDING:
    return
  if is_keras(path):
    raise ValueError(f'{path} {KERAS}')
  if not torch_files.is_torch_file(path):
    raise ValueError(f'{path} is not what torch.save writes: give {FORMATS}; if it should be one, download it again')


def is_keras(path: pathlib.Path) -> bool:
  """Whether a file is Keras', by its ending or its contents."""
  if path.suffix.lower() in ('.h5', '.hdf5', '.keras'):
    return True
  with open(path, 'rb') as file:
    if file.read(len(HDF5)) == HDF5:
      return True
  try:
    with zipfile.ZipFile(path) as packed:
      return any(name.endswith('.h5') for name in packed.namelist())
  except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
    return False


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Weights]:
  with safetensors.safe_open(path, 'np') as file:
    slices = {name: file.get_slice(name) for name in file.keys()}
    yield Weights({name: part.get_dtype() for name, part in slices.items()},
                  {name: tuple(part.get_shape()) for name, part in slices.items()}, file.get_tensor)


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[Weights]:
  with open(path, 'rb') as file:
    content = torch_files.open_file(file)
    yield Weights({name: torch_files.TYPES[tensor.storage.kind][0] for name, tensor in content.tensors.items()},
                  {name: tensor.shape for name, tensor in content.tensors.items()}, content.read)


def read(path: Path) -> dict[str, np.ndarray]:
  """{name: array} of the floats in a file. Names and shapes are checked before memory is allocated. Raises
  ValueError."""
  check_file(path)
  is_safetensors = pathlib.Path(path).suffix.lower() == ENDING
  try:
    with open_safetensors(path) if is_safetensors else open_torch(path) as file:
      if 2 * sum(map(math.prod, file.shapes.values())) > MAX_BYTES:
        size = sum(map(math.prod, file.shapes.values()))
        raise ValueError(f'it holds {size:,} numbers, too many for a trunk: give a file with only the weights')
      odd = next((name for name, kind in file.types.items() if kind not in FLOATS
                  and name.rpartition('.')[2] in PARAMETERS), None)
      if odd is not None:
        raise ValueError(f'{show(odd)} is of type {file.types[odd]}, but must be one of {", ".join(sorted(FLOATS))}')
      return {name: file.load(name) for name, kind in file.types.items() if kind in FLOATS}
  # A hostile file raises errors of safetensors, zipfile or NumPy, or a Rust panic, which is not an Exception.
  except BaseException as error:
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    # Such as a web page, a pointer of Git LFS, or a download that was interrupted.
    remedy = '' if isinstance(error, ValueError | OSError) else '; it is damaged or of another kind: download it again'
    raise ValueError(f'{path} cannot be read: {str(error) or NO_TEXT.get(type(error), repr(error))}{remedy}') from error
