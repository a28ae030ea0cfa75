"""Random boxes for the comparison with torchvision, whose order is (x0, y0, x1, y1); ours is (y0, x0, y1, x1)."""

import pathlib

import numpy as np

from tests.reference import draw

FIXTURE = pathlib.Path(__file__).with_name('boxes.npz')
WEIGHTS = ((1, 1, 1, 1), (10, 10, 5, 5))  # of the box deltas of the RPN and of the RoI head
THRESHOLDS = (0.3, 0.5, 0.7)


def swap(boxes):
  """Boxes or deltas from rows first to columns first, or back."""
  return boxes[..., [1, 0, 3, 2]]


def random_boxes(name, count, extent=100.0, smallest=2.0):
  """(count, 4) rows first, f32."""
  centre = draw.uniform(f'{name} centres', (count, 2), 0, extent)
  half = draw.uniform(f'{name} sides', (count, 2), smallest, 0.4 * extent) / 2
  return np.concatenate([centre - half, centre + half], axis=1)


def tied_boxes(count):
  """Boxes on whole pixels, many with an IoU of exactly 0.3, 0.5 or 0.7 and many duplicates; scores with many ties."""
  stream = draw.stream('tied')
  corner = np.stack([stream.randint(0, 3, count) * 5, stream.randint(0, 11, count)], axis=1)
  side = np.stack([np.full(count, 5), stream.choice([7, 10, 13, 3], count)], axis=1)
  scores = stream.randint(0, 6, count) / 8
  return np.concatenate([corner, corner + side], axis=1).astype(np.float32), scores.astype(np.float32)


def cases():
  """name -> (boxes, scores, classes)."""
  random = random_boxes('nms', 300), draw.uniform('nms scores', (300,), 0, 1)
  return {'random': (*random, draw.stream('kinds').randint(0, 3, 300)),
          'tied': (*tied_boxes(200), draw.stream('tied kinds').randint(0, 3, 200))}
