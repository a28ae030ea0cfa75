"""Tables of predictions with one line per box."""

import numpy as np

NONE = [''] * 7


def name_columns(task, about):
  return ['rows', 'columns', 'box', 'class_id', 'score', 'y0', 'x0', 'y1', 'x1']


def write(task, about, rows):
  """For each image its lines, one without a box where there is none. Empty slots (kind -1) are not written."""
  fields = (rows[name] for name in ('sizes', 'boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id'))
  images = []
  for size, boxes, kinds, scores, truth_boxes, truth_kinds in zip(*fields, strict=True):
    lines = [['predicted', about['box_classes'][kind], float(score), *map(float, box)]
             for box, kind, score in zip(boxes, kinds, scores, strict=True) if kind >= 0]
    lines += [['true', about['box_classes'][kind], '', *map(float, box)]
              for box, kind in zip(truth_boxes, truth_kinds, strict=True) if kind >= 0]
    images.append([[*map(int, size), *line] for line in lines or [NONE]])
  return images


def read(task, about, cells):
  """The columns of `rows` from the lines of each image."""
  rows = {'sizes': np.array([[int(side) for side in lines[0][:2]] for lines in cells]).reshape(-1, 2)}
  for box, prefix in (('predicted', ''), ('true', 'truth_')):
    chosen = [[line[3:] for line in lines if line[2] == box] for lines in cells]
    rows[f'{prefix}boxes'] = collect(np.array([line[2:] for line in lines], float).reshape(-1, 4) for lines in chosen)
    rows[f'{prefix}class_id'] = collect(np.array([about['box_classes'].index(line[0]) for line in lines], int)
                                    for lines in chosen)
    if box == 'predicted':
      rows['score'] = collect(np.array([line[1] for line in lines], float) for lines in chosen)
  return rows


def collect(arrays):
  """(N,) objects, also where all arrays have one shape."""
  arrays = list(arrays)
  collected = np.empty(len(arrays), object)
  for at, array in enumerate(arrays):
    collected[at] = array
  return collected
