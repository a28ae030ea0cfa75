"""Rendering in order, in one process or many, and the writing of a whole archive at once or not at all."""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil

import cv2
import numpy as np
import tqdm

from tfds_builders.phantoms.archives import find_archive

FORMAT = 3  # raise it when the pictures or the layout change: archives of another format are rendered again
STAMP = '.phantom.json'
README = """{name}: phantom radiographs.

These images were computed (X-ray attenuation through invented anatomy). They show no patients, were never near a
hospital, and must not be used for any clinical statement. The layout is that of the public archive of this name, in
miniature, so that software which reads the archive can be tried without it.

images {images}, size {size}, seed {seed}; written by python -m tfds_builders.phantoms
"""


def plan(name, images, seed):
  return list(itertools.islice(find_archive(name).plan(seed), images))


def take(name, shot, size, seed):
  archive = find_archive(name)
  return archive.take(seed, name, shot, size, archive.vendor)


def render(name, images, size=256, seed=0):
  """Yields (path below the archive's root, Radiograph) of the very images that `write` writes, in the same order."""
  for shot in plan(name, images, seed):
    yield shot.path, take(name, shot, size, seed)


def take_and_save(name, size, seed, root, shot):
  """One image's files; returns its Radiograph with the pixels left out, for the tables."""
  radiograph = take(name, shot, size, seed)
  find_archive(name).save(pathlib.Path(root), shot, radiograph)
  empty = np.broadcast_to(np.uint8(0), radiograph.image.shape[:2])
  return dataclasses.replace(radiograph, image=empty, masks={})


def write(name, archives, images, size=256, seed=0, processes=None):
  """Writes the archive `<archives>/<name>` and returns its path; does nothing where it stands finished already.

  It is built under another name and put in place last, so an interrupted run leaves no half archive. A folder that
  this program did not write is never touched. processes: all cores if None and there are more than 64 images.
  """
  shots, archives = plan(name, images, seed), pathlib.Path(archives)
  root, half = archives / name, archives / f'.{name}.part'
  stamp = json.dumps(dict(name=name, images=images, size=size, seed=seed, format=FORMAT))
  if root.exists():
    if not (root / STAMP).exists():
      raise FileExistsError(f'{root} holds an archive that is no phantom; choose another folder for the phantoms')
    if (root / STAMP).read_text() == stamp:
      return root
  if half.exists():
    shutil.rmtree(half)
  half.mkdir(parents=True)
  job = functools.partial(take_and_save, name, size, seed, str(half))
  processes = processes or ((os.cpu_count() or 1) if images > 64 else 1)
  seen = list(tqdm.tqdm(run(job, shots, processes), total=len(shots), desc=f'phantoms {name}', unit='image'))
  find_archive(name).index(half, list(zip(shots, seen, strict=True)))
  (half / 'README.txt').write_text(README.format(name=name, images=images, size=size, seed=seed))
  (half / STAMP).write_text(stamp)
  if root.exists():
    shutil.rmtree(root)
  half.rename(root)
  return root


def run(job, shots, processes):
  """Results in order. Processes are spawned, never forked: the caller may hold a running JAX."""
  if processes == 1:
    yield from map(job, shots)
    return
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(processes, context, cv2.setNumThreads, (1,)) as pool:
    yield from pool.map(job, shots, chunksize=8)
