"""Renders the images of an archive, in one process or several, and writes whole archives atomically."""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import tqdm

from tfds_builders.common import locks
from tfds_builders.phantoms.archives import find_archive
from tfds_builders.phantoms.exposure import Exposure, Radiograph

FORMAT = 3  # increase it when pixels or layout change: archives of another format are then rendered again
STAMP = '.phantom.json'
README = """{name}: phantom radiographs.

These images were computed (X-ray attenuation through invented anatomy). They show no patients, were never near a
hospital, and must not be used for any clinical statement. The layout is that of the public archive of this name, in
miniature, so that software which reads the archive can be tried without it.

images {images}, size {size}, seed {seed}, variation {variation}; written by python -m tfds_builders.phantoms
"""


def plan(name: str, images: int, seed: int) -> list[Exposure]:
  """The first exposures of an archive."""
  return list(itertools.islice(find_archive(name).plan(seed), images))


def render_exposure(name: str, exposure: Exposure, size: int, seed: int, variation: float = 0.0) -> Radiograph:
  archive = find_archive(name)
  return archive.render(seed, name, exposure, size, dataclasses.replace(archive.vendor, variation=variation))


def render(
    name: str, images: int, size: int = 256, seed: int = 0,
    variation: float = 0.0) -> Iterator[tuple[str, Radiograph]]:
  """Yields (path below the archive's root, Radiograph): the images that `write` writes, in the same order."""
  for exposure in plan(name, images, seed):
    yield exposure.path, render_exposure(name, exposure, size, seed, variation)


def render_and_save(
    name: str, size: int, seed: int, variation: float, root: str, exposure: Exposure) -> Radiograph:
  """Writes the files of one image; returns its Radiograph without pixels, for the tables."""
  radiograph = render_exposure(name, exposure, size, seed, variation)
  find_archive(name).save(pathlib.Path(root), exposure, radiograph)
  empty = np.broadcast_to(np.uint8(0), radiograph.image.shape[:2])
  return dataclasses.replace(radiograph, image=empty, masks={})


def write(
    name: str, archives: str | os.PathLike[str], images: int, size: int = 256, seed: int = 0,
    processes: int | None = None, variation: float = 0.0) -> pathlib.Path:
  """Writes the phantom archive <archives>/<name>. Does nothing if it is complete already.

  The archive is written under a hidden name and renamed at the end, so an interrupted run leaves no partial archive.
  Waits for another process that writes it.

  Args:
    name: of the archive.
    archives: folder of the archives.
    images: how many.
    size: longer side in pixels.
    seed: of all random numbers.
    processes: None uses one process up to 64 images, else all cores.
    variation: how much exposures differ in ways that have nothing to do with the labels, 0 to 1; see `variation.py`.

  Returns:
    Path of the archive.

  Raises:
    FileExistsError: the folder holds files that this program did not write; they are never touched.
    ValueError: unknown name.
  """
  exposures, archives = plan(name, images, seed), pathlib.Path(archives)
  root, partial = archives / name, archives / f'.{name}.part'
  # Without variation the stamp does not name it, so archives from before this argument are kept.
  stamp = json.dumps(dict(name=name, images=images, size=size, seed=seed, format=FORMAT)
                     | ({'variation': variation} if variation else {}))
  if is_complete(root, stamp):
    return root
  with locks.hold(archives / f'.{name}.lock', f'writes the phantoms of {name}'):
    if not is_complete(root, stamp):  # else another process has written it meanwhile
      write_new(name, root, partial, exposures, stamp, images, size, seed, processes, variation)
  return root


def is_complete(root: pathlib.Path, stamp: str) -> bool:
  """Whether `root` is the archive that the stamp describes. Raises FileExistsError if it is no phantom archive."""
  if not root.exists():
    return False
  if not (root / STAMP).exists():
    raise FileExistsError(f'{root} is not a phantom archive and will not be overwritten; choose another folder')
  return (root / STAMP).read_text() == stamp


def write_new(
    name: str, root: pathlib.Path, partial: pathlib.Path, exposures: Sequence[Exposure], stamp: str, images: int,
    size: int, seed: int, processes: int | None, variation: float) -> None:
  """Writes the archive to `partial` and renames it to `root`, in place of one with other settings."""
  if partial.exists():
    shutil.rmtree(partial)
  partial.mkdir(parents=True)
  job = functools.partial(render_and_save, name, size, seed, variation, str(partial))
  processes = processes or ((os.cpu_count() or 1) if images > 64 else 1)
  jobs = tqdm.tqdm(run(job, exposures, processes), total=len(exposures), desc=f'phantoms {name}', unit='image',
                   disable=None)
  radiographs = list(jobs)
  find_archive(name).write_tables(partial, list(zip(exposures, radiographs, strict=True)))
  readme = README.format(name=name, images=images, size=size, seed=seed, variation=variation)
  (partial / 'README.txt').write_text(readme)
  (partial / STAMP).write_text(stamp)
  if root.exists():
    shutil.rmtree(root)
  partial.rename(root)


def run(
    job: Callable[[Exposure], Radiograph], exposures: Sequence[Exposure], processes: int) -> Iterator[Radiograph]:
  """Yields results in order. Processes are spawned, not forked, since forking a process that runs JAX can deadlock."""
  if processes == 1:
    yield from map(job, exposures)
    return
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(processes, context, cv2.setNumThreads, (1,)) as pool:
    yield from pool.map(job, exposures, chunksize=8)
