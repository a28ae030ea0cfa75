"""Boxes of several detectors, to compare with the authors' weighted boxes fusion (the package ensemble-boxes)."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('fusion.npz')
DETECTORS, CLASSES = 3, 2


def make_case(image):
  """[(boxes (M, 4) in 0-1, class_id (M,), score (M,)) of each detector]: objects that most of them find, once or twice,
  and boxes that only one of them finds."""
  objects = draw.uniform(f'objects {image}', (6, 2), 0.25, 0.75)
  found = []
  for detector in range(DETECTORS):
    name, count = f'{image} {detector}', 8 + 3 * detector
    centres = objects[draw.stream(name).randint(0, len(objects), count)] + draw.normal(name, (count, 2)) * 0.02
    halves = draw.uniform(f'{name} sides', (count, 2), 0.07, 0.11)
    classes = draw.stream(f'{name} classes').randint(0, CLASSES, count)
    found.append((np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32), classes,
                  draw.uniform(f'{name} scores', (count,), 0.05, 1).astype(np.float32)))
  return found
