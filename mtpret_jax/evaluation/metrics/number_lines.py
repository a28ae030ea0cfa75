"""Tables of predictions with one line of numbers per image."""

import numpy as np

from mtpret_jax.evaluation.metrics.regression import write_unit


def name_columns(task, about):
  if task == 'classification':
    return [f'{title}: {name}' for title in ('probability', 'present') for name in about['findings']]
  if task == 'regression':
    return [f'{title}{write_unit(about)}' for title in ('predicted', 'true')]
  return [f'pixels of {true} as {predicted}' for true in about['mask'] for predicted in about['mask']]


def write(task, about, rows):
  """A list of lines, here one, for each image."""
  if task == 'classification':
    present_NT = np.where(rows['label_mask'], rows['present'].astype(int).astype(object), '')
    table = [[*score, *present] for score, present in zip(rows['score'].tolist(), present_NT.tolist(), strict=True)]
  elif task == 'regression':
    table = np.hstack([rows['predicted'], rows['value']]).tolist()
  else:
    table = rows['confusion'].reshape(len(rows['confusion']), -1).tolist()
  return [[line] for line in table]


def read(task, about, cells):
  """The columns of `rows` from the lines of each image."""
  table_NC = np.array([line for line, in cells], object).reshape(len(cells), len(name_columns(task, about)))
  known_NC = table_NC != ''
  numbers_NC = np.where(known_NC, table_NC, 0).astype(float)
  if task == 'classification':
    score_NT, present_NT = np.hsplit(numbers_NC, 2)
    return {'score': score_NT, 'present': present_NT, 'label_mask': np.hsplit(known_NC, 2)[1].astype(bool)}
  if task == 'regression':
    return {'predicted': numbers_NC[:, :1], 'value': numbers_NC[:, 1:]}
  return {'confusion': numbers_NC.astype(int).reshape(len(cells), len(about['mask']), -1)}
