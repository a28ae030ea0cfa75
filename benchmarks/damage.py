"""Damaged checkpoints: is the damage noticed, and is the checkpoint before it used?

    python -m benchmarks.damage --n=1000 --seed=0

Two checkpoints of a small state are saved as a run saves them, steps 3 and 6; each case is a copy with one damage: a
flipped bit, truncation, zeros or garbage in a random file, one file or all deleted, a file too many, a save that was
broken off, two files or the files of two steps exchanged, a manifest flipped, truncated, emptied, deleted or put in
another's place. It hits the newer checkpoint, in one of four cases both, and it may hit any file. Then the run is
resumed. What must come of it: the state of step 3, bit for bit, where only the newer one is hit; a refusal of one line
that names the damage where both are; never anything else. About 50 ms each.
"""

import argparse
import collections
import logging
import pathlib
import random
import shutil
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from mtpret_jax.runtime import checkpoint, checksums

OLD, NEW = 3, 6


def make_state(step):
  rng = np.random.default_rng(step)
  return {'step': jnp.int32(step), 'params': {'trunk': {'kernel': jnp.asarray(rng.normal(size=(40, 50)))},
                                              'head': [jnp.asarray(rng.normal(size=7)), jnp.zeros(3)]}}


def pick(rng, folder):
  """A file of the checkpoint, any of the same chance."""
  return rng.choice(sorted(path for path in folder.rglob('*') if path.is_file()))


def pick_filled(rng, folder):
  while not (path := pick(rng, folder)).stat().st_size:
    pass
  return path


def flip(rng, path):
  data = bytearray(path.read_bytes())
  bit = rng.randrange(8 * len(data))
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


def truncate(rng, path):
  with open(path, 'r+b') as file:
    file.truncate(rng.randrange(path.stat().st_size))


def overwrite(rng, path):
  """A piece in the file is zeros or garbage, as after a block that was never written."""
  data = bytearray(path.read_bytes())
  start = rng.randrange(len(data))
  piece = bytes(len(data) - start) if rng.random() < 0.5 else rng.randbytes(len(data) - start)
  path.write_bytes(data[:start] + piece if data[start:] != piece else data + b'\0')


def swap_files(rng, folder):
  paths = [path for path in folder.rglob('*') if path.is_file()]
  one, other = next((one, other) for one in rng.sample(paths, len(paths)) for other in paths
                    if one.read_bytes() != other.read_bytes())
  first, second = one.read_bytes(), other.read_bytes()
  one.write_bytes(second)
  other.write_bytes(first)


def break_off(rng, folder):
  """A save that was killed: some of its files, with the mark; or all, with the mark, but not the manifest."""
  for path in [path for path in folder.rglob('*') if path.is_file()]:
    if rng.random() < 0.5:
      path.unlink()
  folder.with_name(f'{folder.name}.incomplete').touch()
  checksums.manifest_path(folder).unlink()


def exchange(rng, folder):
  """The folder of the other step under this one's name."""
  shutil.rmtree(folder)
  shutil.copytree(folder.with_name(str(OLD if folder.name == str(NEW) else NEW)), folder)


WAYS = {
  'flipped bit': lambda rng, folder: flip(rng, pick_filled(rng, folder)),
  'flipped bit in the arrays': lambda rng, folder: flip(rng, max(
    folder.rglob('*'), key=lambda path: path.stat().st_size if path.is_file() else -1)),
  'truncation': lambda rng, folder: truncate(rng, pick_filled(rng, folder)),
  'zeros or garbage': lambda rng, folder: overwrite(rng, pick_filled(rng, folder)),
  'file deleted': lambda rng, folder: pick(rng, folder).unlink(),
  'all files deleted': lambda rng, folder: [path.unlink() for path in folder.rglob('*') if path.is_file()],
  'file too many': lambda rng, folder: (rng.choice([folder, folder / 'state']) / 'late').write_bytes(b''),
  'save broken off': break_off,
  'files swapped': swap_files,
  'other step': exchange,
  'manifest flipped': lambda rng, folder: flip(rng, checksums.manifest_path(folder)),
  'manifest truncated': lambda rng, folder: truncate(rng, checksums.manifest_path(folder)),
  'manifest deleted': lambda rng, folder: checksums.manifest_path(folder).unlink(),
  "other's manifest": lambda rng, folder: shutil.copy(
    checksums.manifest_path(folder.with_name(str(OLD if folder.name == str(NEW) else NEW))), checksums.manifest_path(folder)),
}


def judge(rng, workdir, way, both):
  """What is wrong with what comes of one damage, in words."""
  folder = workdir / 'checkpoints'
  WAYS[way](rng, folder / str(NEW))
  if both:
    WAYS['flipped bit'](rng, pick_folder(folder))
  try:
    with checkpoint.open_checkpoints(workdir, 2) as checkpoints:
      state = checkpoint.restore(checkpoints, make_state(0), {})
  except checkpoint.Damaged as error:
    return '' if both and '\n' not in str(error) and f'step {OLD} is damaged' in str(error) else f'refused: {error}'
  except Exception as error:
    return f'{type(error).__name__}: {error}'
  if both:
    return f'step {int(state["step"])} was loaded, though both are damaged'
  wanted = make_state(OLD)
  if jax.tree.all(jax.tree.map(lambda one, two: np.array_equal(one, two), state, wanted)):
    return ''
  return f'step {int(state["step"])} was loaded, which is not that of step {OLD}'


def pick_folder(folder):
  return folder / str(OLD)


def run(n, seed, folder):
  """How many of `n` damages were noticed."""
  whole, counts, good = folder / 'whole', collections.Counter(), 0
  with checkpoint.open_checkpoints(whole, 2) as checkpoints:
    for step in (OLD, NEW):
      checkpoint.save(checkpoints, make_state(step), step, {})
  for number in range(n):
    rng = random.Random(f'{seed} {number}')
    way, both = list(WAYS)[number % len(WAYS)], number // len(WAYS) % 4 == 3
    workdir = folder / 'case'
    shutil.copytree(whole, workdir)
    wrong = judge(rng, workdir, way, both)
    shutil.rmtree(workdir)
    counts[way] += not wrong
    good += not wrong
    if wrong:
      print(f'case {number}, {way}{", both" if both else ""}: {wrong}', flush=True)
  for way, count in counts.items():
    print(f'  {way}: {count}')
  return good


def main():
  parser = argparse.ArgumentParser(prog='python -m benchmarks.damage', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=1000, help='cases')
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  logging.getLogger('mtpret_jax').setLevel(logging.ERROR)
  with tempfile.TemporaryDirectory() as folder:
    good = run(flags.n, flags.seed, pathlib.Path(folder))
  print(f'damage: {good} of {flags.n}')
  return int(good < flags.n)


if __name__ == '__main__':
  sys.exit(main())
