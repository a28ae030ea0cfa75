"""Damaged checkpoints: is every damage noticed, and is the checkpoint before it used?

    python -m benchmarks.damage --n=1000 --seed=0

Two checkpoints of a small state are saved as a run saves them, at steps 3 and 6. Each case is a copy with one damage
from DAMAGES to the newer checkpoint, to any of its files; in one case of four the older one is damaged too. Then the
run is resumed. If one checkpoint is damaged, the state of step 3 must be loaded bit for bit. If both are, there must be
an error of one line that names the damage. A case takes about 50 ms.
"""

import argparse
import collections
import logging
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtpret_jax.runtime import checkpoint, checksums

OLD, NEW = 3, 6  # steps


def make_state(step: int) -> dict[str, Any]:
  rng = np.random.default_rng(step)
  return {'step': jnp.int32(step), 'params': {'trunk': {'kernel': jnp.asarray(rng.normal(size=(40, 50)))},
                                              'head': [jnp.asarray(rng.normal(size=7)), jnp.zeros(3)]}}


def pick(rng: random.Random, folder: pathlib.Path) -> pathlib.Path:
  """A random file of the checkpoint."""
  return rng.choice(sorted(path for path in folder.rglob('*') if path.is_file()))


def pick_filled(rng: random.Random, folder: pathlib.Path) -> pathlib.Path:
  """A random file that is not empty."""
  while not (path := pick(rng, folder)).stat().st_size:
    pass
  return path


def find_largest(folder: pathlib.Path) -> pathlib.Path:
  """The file that holds the arrays."""
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def other_step(folder: pathlib.Path) -> pathlib.Path:
  return folder.with_name(str(OLD if folder.name == str(NEW) else NEW))


def flip(rng: random.Random, path: pathlib.Path) -> None:
  """Flips one bit."""
  data = bytearray(path.read_bytes())
  bit = rng.randrange(8 * len(data))
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


def truncate(rng: random.Random, path: pathlib.Path) -> None:
  with open(path, 'r+b') as file:
    file.truncate(rng.randrange(path.stat().st_size))


def overwrite(rng: random.Random, path: pathlib.Path) -> None:
  """Replaces the end of a file by zeros or garbage, as when a block was never written."""
  data = bytearray(path.read_bytes())
  start = rng.randrange(len(data))
  piece = bytes(len(data) - start) if rng.random() < 0.5 else rng.randbytes(len(data) - start)
  path.write_bytes(data[:start] + piece if data[start:] != piece else data + b'\0')


def swap_files(rng: random.Random, folder: pathlib.Path) -> None:
  """Exchanges the contents of two files."""
  paths = [path for path in folder.rglob('*') if path.is_file()]
  one, other = next((one, other) for one in rng.sample(paths, len(paths)) for other in paths
                    if one.read_bytes() != other.read_bytes())
  first, second = one.read_bytes(), other.read_bytes()
  one.write_bytes(second)
  other.write_bytes(first)


def interrupt_save(rng: random.Random, folder: pathlib.Path) -> None:
  """Leaves what a killed save leaves: the mark `.incomplete`, no manifest, and some or all of the files."""
  for path in [path for path in folder.rglob('*') if path.is_file()]:
    if rng.random() < 0.5:
      path.unlink()
  folder.with_name(f'{folder.name}.incomplete').touch()
  checksums.manifest_path(folder).unlink()


def copy_other_step(rng: random.Random, folder: pathlib.Path) -> None:
  """Replaces the files by those of the other step."""
  shutil.rmtree(folder)
  shutil.copytree(other_step(folder), folder)


def delete_files(rng: random.Random, folder: pathlib.Path) -> None:
  for path in folder.rglob('*'):
    if path.is_file():
      path.unlink()


# Name -> function (rng, folder of the checkpoint).
DAMAGES: dict[str, Callable[[random.Random, pathlib.Path], Any]] = {
  'flipped bit': lambda rng, folder: flip(rng, pick_filled(rng, folder)),
  'flipped bit in the arrays': lambda rng, folder: flip(rng, find_largest(folder)),
  'truncation': lambda rng, folder: truncate(rng, pick_filled(rng, folder)),
  'zeros or garbage': lambda rng, folder: overwrite(rng, pick_filled(rng, folder)),
  'file deleted': lambda rng, folder: pick(rng, folder).unlink(),
  'all files deleted': delete_files,
  'additional file': lambda rng, folder: (rng.choice([folder, folder / 'state']) / 'late').write_bytes(b''),
  'save interrupted': interrupt_save,
  'files swapped': swap_files,
  'files of the other step': copy_other_step,
  'manifest flipped': lambda rng, folder: flip(rng, checksums.manifest_path(folder)),
  'manifest truncated': lambda rng, folder: truncate(rng, checksums.manifest_path(folder)),
  'manifest deleted': lambda rng, folder: checksums.manifest_path(folder).unlink(),
  'manifest of the other step': lambda rng, folder: shutil.copy(
    checksums.manifest_path(other_step(folder)), checksums.manifest_path(folder)),
}


def judge(rng: random.Random, workdir: pathlib.Path, damage: str, both: bool) -> str:
  """Damages the checkpoints and resumes. Returns what went wrong, in words; '' if nothing did."""
  folder = workdir / 'checkpoints'
  DAMAGES[damage](rng, folder / str(NEW))
  if both:
    DAMAGES['flipped bit'](rng, folder / str(OLD))
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


def run(n: int, seed: int, folder: pathlib.Path) -> int:
  """How many of `n` cases ended as they must."""
  whole, passed = folder / 'whole', 0
  counts: collections.Counter = collections.Counter()
  with checkpoint.open_checkpoints(whole, 2) as checkpoints:
    for step in (OLD, NEW):
      checkpoint.save(checkpoints, make_state(step), step, {})
  for number in range(n):
    rng = random.Random(f'{seed} {number}')
    damage, both = list(DAMAGES)[number % len(DAMAGES)], number // len(DAMAGES) % 4 == 3
    workdir = folder / 'case'
    shutil.copytree(whole, workdir)
    wrong = judge(rng, workdir, damage, both)
    shutil.rmtree(workdir)
    counts[damage] += not wrong
    passed += not wrong
    if wrong:
      print(f'case {number}, {damage}{", both" if both else ""}: {wrong}', flush=True)
  for damage, count in counts.items():
    print(f'  {damage}: {count}')
  return passed


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m benchmarks.damage', description=__doc__.split('\n')[0])
  parser.add_argument('--n', type=int, default=1000, help='cases')
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  logging.getLogger('mtpret_jax').setLevel(logging.ERROR)
  with tempfile.TemporaryDirectory() as folder:
    passed = run(flags.n, flags.seed, pathlib.Path(folder))
  print(f'damage: {passed} of {flags.n}')
  return int(passed < flags.n)


if __name__ == '__main__':
  sys.exit(main())
