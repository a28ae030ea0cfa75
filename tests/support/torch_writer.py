"""Writes files as `torch.save` does, without torch: the zip format, and the one of before torch 1.6."""

import collections
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

KINDS = {np.dtype(kind): name for kind, name in {
  np.float64: 'Double', np.float32: 'Float', np.float16: 'Half', ml_dtypes.bfloat16: 'BFloat16', np.int64: 'Long',
  np.int8: 'Char', np.bool_: 'Bool'}.items()}
MAGIC, VERSION = 0x1950a86a20f9469cfc6c, 1001


class Global:
  """A class or function of this name. It is written by its name only."""

  def __init__(self, name):
    self.module, _, self.name = name.rpartition('.')

  def __call__(self):
    raise AssertionError('only written')


class Call:
  """What a call of a global gives, with attributes."""

  def __init__(self, name, arguments=(), state=None):
    self.name, self.arguments, self.state = name, arguments, state


class Storage:
  def __init__(self, numbers):
    self.numbers = numbers


class Part:
  """A storage that is a view of `count` numbers of another one, which only files of before torch 1.6 have."""

  def __init__(self, whole, offset, count):
    self.whole, self.place = whole, ('part', offset, count)


class View:
  """A tensor that is a view of a storage, which it may share with others."""

  def __init__(self, storage, offset, shape, stride):
    self.arguments = (storage, offset, shape, stride, False, collections.OrderedDict())


class Pickler(pickle._Pickler):
  """Writes arrays as tensors. `storages` are those that were met, by their keys."""

  def __init__(self, file, protocol):
    super().__init__(file, protocol)
    self.storages, self.is_legacy = {}, False

  def persistent_id(self, value):
    place = value.place if isinstance(value, Part) else None
    value = value.whole if isinstance(value, Part) else value
    if not isinstance(value, Storage):
      return None
    key = next((key for key, met in self.storages.items() if met is value), str(len(self.storages)))
    self.storages[key] = value
    identity = ('storage', Global(f'torch.{KINDS[value.numbers.dtype]}Storage'), key, 'cpu', value.numbers.size)
    return (*identity, place) if self.is_legacy or place else identity

  def save(self, value, save_persistent_id=True):
    if isinstance(value, np.ndarray):
      value = View(Storage(value.ravel()), 0, value.shape, tuple(step // value.itemsize for step in
                                                                 np.zeros(value.shape, value.dtype).strides))
    if isinstance(value, Global):
      self.write(pickle.GLOBAL + f'{value.module}\n{value.name}\n'.encode())
    elif isinstance(value, View):
      self.save_reduce(Global('torch._utils._rebuild_tensor_v2'), value.arguments)
    elif isinstance(value, Call):
      self.save_reduce(Global(value.name), value.arguments, value.state)
    else:
      super().save(value, save_persistent_id)


def dump(value, *, is_legacy=False, protocol=2):
  """(pickle, {key: storage})."""
  out = io.BytesIO()
  pickler = Pickler(out, protocol)
  pickler.is_legacy = is_legacy
  pickler.dump(value)
  return out.getvalue(), pickler.storages


def write(path, value, *, is_legacy=False, protocol=2, order='little', root='archive'):
  """What torch.save(value, path) writes; arrays become tensors."""
  program, storages = dump(value, is_legacy=is_legacy, protocol=protocol)
  packed = {key: pack(storage.numbers, order) for key, storage in storages.items()}
  if is_legacy:
    machine = {'protocol_version': VERSION, 'little_endian': order == 'little', 'type_sizes': {'short': 2}}
    with open(path, 'wb') as file:
      file.write(b''.join(pickle.dumps(part, 2) for part in (MAGIC, VERSION, machine)) + program)
      file.write(pickle.dumps(sorted(packed), 2))
      for key in sorted(packed):
        file.write(struct.pack('<q' if order == 'little' else '>q', storages[key].numbers.size) + packed[key])
    return
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(f'{root}/data.pkl', program)
    archive.writestr(f'{root}/byteorder', order)
    for key, data in packed.items():
      archive.writestr(f'{root}/data/{key}', data)
    archive.writestr(f'{root}/version', '3\n')


def pack(numbers, order):
  raw = numbers.view(f'u{numbers.itemsize}')
  return (raw if order == 'little' else raw.byteswap()).tobytes()
