"""Reads files of weights: safetensors. For the other formats it says how to convert them."""

import math
import os
import pathlib
import shlex
import zipfile

import ml_dtypes  # noqa: F401
import numpy as np
import safetensors

from mtpret_jax.config.errors import show

FLOATS = {'F64', 'F32', 'F16', 'BF16'}  # for BF16, NumPy needs the type that importing ml_dtypes gives it
PARAMETERS = ('weight', 'bias', 'running_mean', 'running_var')  # what a trunk's parameters are called
MAX_BYTES = 2**32  # of a file; MoCo's release, with two encoders and a queue, has 0.3 GB
ENDING = '.safetensors'
CONVERTER = pathlib.Path(__file__).with_name('convert_pickle.py')
HDF5 = b'\x89HDF\r\n\x1a\n'  # the first bytes of Keras' .h5 files; .keras files are zip files with one inside
KERAS = ('is a file of Keras. Its ResNet-50 is another network than torchvision\'s (strides elsewhere, biases in its '
         'convolutions), so its weights cannot be used: give weights for PyTorch, which RadImageNet has too')

Path = str | os.PathLike


def check_file(path: Path) -> None:
  """Raises ValueError if `path` is not a file, or not called .safetensors."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'{path} is not a file: give a .safetensors file, or the workdir of a run')
  if path.suffix.lower() == ENDING:
    return
  if is_keras(path):
    raise ValueError(f'{path} {KERAS}')
  # Loading a pickle can execute anything. This program never does.
  command = shlex.join(['python', str(CONVERTER), str(path), str(path.with_suffix(ENDING))])
  raise ValueError(f'{path} is not a .safetensors file; where torch is installed (weights_only=True: no code in the '
                   f'file runs), convert it with: {command}')


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


def read(path: Path) -> dict[str, np.ndarray]:
  """{name: array} of the floats in a safetensors file. Its header is checked before memory is allocated. Raises
  ValueError."""
  check_file(path)
  try:
    with safetensors.safe_open(path, 'np') as file:
      slices = {name: file.get_slice(name) for name in file.keys()}
      size = sum(math.prod(part.get_shape()) for part in slices.values())
      if 2 * size > MAX_BYTES:
        raise ValueError(f'it holds {size:,} numbers, too many for a trunk: give a file with only the weights')
      odd = next((name for name, part in slices.items() if part.get_dtype() not in FLOATS
                  and name.rpartition('.')[2] in PARAMETERS), None)
      if odd is not None:
        raise ValueError(f'{show(odd)} is of type {slices[odd].get_dtype()}, but must be one of '
                         f'{", ".join(sorted(FLOATS))}')
      return {name: file.get_tensor(name) for name, part in slices.items() if part.get_dtype() in FLOATS}
  # A hostile file raises errors of safetensors or NumPy, or a Rust panic, which is not an Exception.
  except BaseException as error:
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    # Such as a web page, a pointer of Git LFS, or a download that was interrupted.
    remedy = '' if isinstance(error, ValueError | OSError) else (
      '; it is damaged or no safetensors file: download it again')
    raise ValueError(f'{path} cannot be read: {error}{remedy}') from error
