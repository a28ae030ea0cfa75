"""How well predicted areas cover the true ones.

The papers print a Dice of the foreground and a mean IoU over all classes with the background (MUSCLE's results table),
and do not say whether over the pixels of all images or image by image. Both are given; that the headline is the
Dice averaged over images is our choice: it is what a reader of one radiograph may expect, large images or not.
"""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide

COLUMNS = ('confusion',)
PREDICTED = ()  # counts


def find_headline(about):
  return 'Dice over images'


def prepare(about, rows):
  """Leaves out images without an annotated pixel. `confusion` is (N, T, T), the pixels of true class t that are
  predicted as class p."""
  annotated = rows['confusion'].sum((1, 2)) > 0
  rows = {name: values[annotated] for name, values in rows.items()}
  return rows | {'confusion': rows['confusion'].astype(float)}


def make_measure(about, rows):
  """Dice and IoU, in 0..1, of each class and their means: Dice over the foreground, IoU over all classes.

  'over pixels' adds the pixels of all images up first; 'over images' is the mean over the images where the class is in
  the truth or the prediction. The means over classes are taken last.
  """
  classes, confusion_NTT = about['mask'], rows['confusion']
  both_TN = np.diagonal(confusion_NTT, axis1=1, axis2=2).T
  sizes_TN = confusion_NTT.sum(2).T + confusion_NTT.sum(1).T

  average_dice = make_average(divide(2 * both_TN, sizes_TN))
  average_iou = make_average(divide(both_TN, sizes_TN - both_TN))

  def measure(weights_NR):
    found = {'Dice over images': average_dice(weights_NR), 'IoU over images': average_iou(weights_NR)}
    both_TR, sizes_TR = both_TN @ weights_NR, sizes_TN @ weights_NR
    found |= {'Dice over pixels': divide(2 * both_TR, sizes_TR),
              'IoU over pixels': divide(both_TR, sizes_TR - both_TR)}
    scores = {}
    for place in ('images', 'pixels'):
      scores[f'Dice over {place}'] = average(found[f'Dice over {place}'][1:])
      scores[f'mean IoU over {place}'] = average(found[f'IoU over {place}'])
    return scores | {f'{name}: {title}': row for name, values_TR in found.items()
                     for title, row in zip(classes, values_TR, strict=True)}

  return measure


def make_average(values_TN):
  """measure(weights_NR) -> (T, R), the weighted mean over the images where a value is defined."""
  defined_TN, values_TN = (~np.isnan(values_TN)).astype(float), np.nan_to_num(values_TN)
  return lambda weights_NR: divide(values_TN @ weights_NR, defined_TN @ weights_NR)
