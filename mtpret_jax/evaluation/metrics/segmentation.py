"""Segmentation scores: how well predicted areas overlap the true ones.

The papers print a Dice of the foreground and a mean IoU over all classes, background included (MUSCLE's results table).
They do not say whether they average over images or count the pixels of all images together, so we give both. The
headline, Dice averaged over images, is our choice: every radiograph counts the same, whatever the size of its organs.
"""

from collections.abc import Sequence

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore, WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows


def find_headline(about: About) -> str:
  return 'Dice over images'


def prepare(about: About, rows: Rows) -> Rows:
  """Leaves out images without an annotated pixel. `confusion` is (N, T, T): pixels of true class t predicted as p."""
  annotated_N = rows['confusion'].sum((1, 2)) > 0
  kept = {name: values[annotated_N] for name, values in rows.items()}
  return kept | {'confusion': kept['confusion'].astype(float)}


def make_scorer(about: About, rows: Rows) -> WeightedScores:
  """Dice and IoU, in 0..1, of each class and their means: Dice over the foreground classes, IoU over all classes.

  'over pixels' sums the pixels of all images first. 'over images' averages over the images in which the truth or the
  prediction has the class. The mean over classes comes last.
  """
  classes, confusion_NTT = about['mask'], rows['confusion']
  intersection_TN = np.diagonal(confusion_NTT, axis1=1, axis2=2).T
  sizes_TN = confusion_NTT.sum(2).T + confusion_NTT.sum(1).T  # pixels of the truth plus pixels of the prediction

  compute_mean_dice = make_mean_over_images(divide(2 * intersection_TN, sizes_TN))
  compute_mean_iou = make_mean_over_images(divide(intersection_TN, sizes_TN - intersection_TN))

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    by_class = {'Dice over images': compute_mean_dice(weights_NR), 'IoU over images': compute_mean_iou(weights_NR)}
    intersection_TR, sizes_TR = intersection_TN @ weights_NR, sizes_TN @ weights_NR
    by_class |= {'Dice over pixels': divide(2 * intersection_TR, sizes_TR),
                 'IoU over pixels': divide(intersection_TR, sizes_TR - intersection_TR)}
    scores = {}
    for place in ('images', 'pixels'):
      scores[f'Dice over {place}'] = average(by_class[f'Dice over {place}'][1:])  # class 0 is the background
      scores[f'mean IoU over {place}'] = average(by_class[f'IoU over {place}'])
    return scores | {f'{name}: {title}': row for name, values_TR in by_class.items()
                     for title, row in zip(classes, values_TR, strict=True)}

  return compute


def make_mean_over_images(values_TN: np.ndarray) -> WeightedScore:
  """weights_NR -> (T, R), the weighted mean over the images where a value is defined."""
  defined_TN, values_TN = (~np.isnan(values_TN)).astype(float), np.nan_to_num(values_TN)
  return lambda weights_NR: divide(values_TN @ weights_NR, defined_TN @ weights_NR)


def find_errors(about: About, rows: Rows) -> np.ndarray:
  """(N,) 1 - Dice, averaged over the foreground classes that an image or its prediction has; NaN without any."""
  confusion_NTT = rows['confusion']
  sizes_TN = confusion_NTT.sum(2).T + confusion_NTT.sum(1).T
  return 1 - average(divide(2 * np.diagonal(confusion_NTT, axis1=1, axis2=2).T, sizes_TN)[1:])


def name_columns(about: About) -> list[str]:
  return [f'pixels of {true} as {predicted}' for true in about['mask'] for predicted in about['mask']]


def write_lines(about: About, rows: Rows) -> list[list[list]]:
  return [[line] for line in rows['confusion'].reshape(len(rows['confusion']), -1).tolist()]


def read_lines(about: About, images: Sequence) -> dict[str, np.ndarray]:
  classes = len(about['mask'])
  return {'confusion': np.array([line for line, in images], float).astype(int).reshape(len(images), classes, classes)}


METRICS = Metrics(
  task='segmentation', columns=('confusion',),
  predicted=(),  # none to check: confusion holds counts, which are finite
  find_headline=find_headline, prepare=prepare, make_scorer=make_scorer, name_columns=name_columns,
  write_lines=write_lines, read_lines=read_lines, find_errors=find_errors)
