"""Damaged and hostile files of `torch.save`, in its two formats. `weights.py` judges what comes of them."""

import io
import pathlib
import pickletools
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np

from benchmarks.fuzz import raw as raws
from benchmarks.fuzz import values
from tests.support import torch_writer

FILES = ('whole.zip.pth', 'whole.old.pth')
LONG = b'\xff\xff\xff\x7f'  # a length or an index of 2 GiB
# What is put among the instructions of a pickle: calls, marks, the memo, lengths, protocols that torch does not use.
INSTRUCTIONS = (
  b'cos\nmkdir\n(X\x06\x00\x00\x00canarytR', b'cbuiltins\neval\n(X\x14\x00\x00\x00open("canary", mode=1)tR',
  b'iposix\nsystem\n', b'P0\n', b'I1\n', b'L' + b'9' * 9999 + b'L\n', b'\x82\x01', b'\x95' + b'\xff' * 8, b'j' + LONG,
  b'r' + LONG, b'X' + LONG, b'\x8b' + LONG, b'\x8d' + b'\xff' * 8, b'}2s' * 99, b'h\x00',
  *(bytes([code]) for code in b'.012()t}]RbQuseaN\x81\x92\x93\x94\x85\x88\x97'))


def write_whole(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes FILES: the arrays in a checkpoint with an optimiser, arguments and a counter."""
  arguments = torch_writer.Call('argparse.Namespace', (), {'lr': 0.1, 'data': ['a', None, True, 2.5, ('b', 3)]})
  value = {'epoch': 7, 'state_dict': dict(arrays), 'args': arguments, 'optimizer': {
    'state': {0: {'step': 3, 'exp_avg': arrays['bn1.weight']}}, 'param_groups': [{'params': [0, 1]}]}}
  for name in FILES:
    torch_writer.write(folder / name, value, is_legacy='old' in name)


def damage_bytes(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  path.write_bytes(values.pick(rng, tuple(raws.KINDS.values()))(rng, whole))


def damage_program(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """Bytes or instructions of the pickle are changed. The checksums of a zip file fit."""
  before, program, after = split(whole)
  for _ in range(rng.integers(1, 4)):
    if rng.random() < 0.5:
      program = values.pick(rng, tuple(raws.KINDS.values()))(rng, program)
    else:
      place = int(rng.integers(2, max(len(program), 3)))
      program = program[:place] + values.pick(rng, (*INSTRUCTIONS, values.some_bytes(rng, 99))) + program[place:]
  if whole.startswith(b'PK'):
    write_members(path, read_members(whole) | {'archive/data.pkl': program})
  else:
    path.write_bytes(before + program + after)


def lie_members(rng: np.random.Generator, path: pathlib.Path, whole: bytes) -> None:
  """Members of a zip file are absent, compressed, of other sizes or names, or there twice. Other files end early."""
  if not whole.startswith(b'PK'):
    path.write_bytes(whole[:rng.integers(len(whole))])
    return
  members = read_members(whole)
  name, way = values.pick(rng, tuple(members)), rng.integers(7)
  if way == 0:
    del members[name]
  elif way == 1:
    members[name] = members[name][:rng.integers(len(members[name]) + 1)] + values.some_bytes(rng, 9)
  elif way == 2:
    members[values.pick(rng, ('/etc/x', '../x', 'a/data.pkl', 'archive/constants.pkl', 'x' * 999, 'x/'))] = b''
  elif way == 3:
    members['archive/byteorder'] = values.pick(rng, (b'big', b'', b'middle', bytes(99)))
  elif way == 4:
    root = values.pick(rng, ('', 'a/b', 'é', '..'))
    members = {member.replace('archive', root): data for member, data in members.items()}
  write_members(path, members, zipfile.ZIP_DEFLATED if way == 5 else zipfile.ZIP_STORED, twice=name if way == 6 else '')


def split(whole: bytes) -> tuple[bytes, bytes, bytes]:
  """(what precedes the pickle of the weights, the pickle, what follows) in one of FILES."""
  if whole.startswith(b'PK'):
    return b'', read_members(whole)['archive/data.pkl'], b''
  file, places = io.BytesIO(whole), [0]
  for _ in range(4):
    for _ in pickletools.genops(file):
      pass
    places.append(file.tell())
  return whole[:places[3]], whole[places[3]:places[4]], whole[places[4]:]


def read_members(whole: bytes) -> dict[str, bytes]:
  with zipfile.ZipFile(io.BytesIO(whole)) as file:
    return {name: file.read(name) for name in file.namelist()}


def write_members(path: pathlib.Path, members: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED,
                  twice: str = '') -> None:
  with zipfile.ZipFile(path, 'w', packing) as file, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of names that are there twice
    for name, data in members.items():
      for _ in range(1 + (name == twice)):
        file.writestr(name, data)


KINDS = {'weights: torch, bytes': damage_bytes, 'weights: torch, pickle': damage_program,
         'weights: torch, members': lie_members}
