"""How well predicted boxes find the true ones.

Boxes are matched once; under a resample the matches of an image count as often as it is drawn. That is what pycocotools
gives on a data set in which drawn images are repeated, but for the order of boxes with equal scores.
"""

import numpy as np

from mtpret_jax.evaluation.metrics.matching import match_boxes
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide

COLUMNS = ('boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id', 'sizes')
PREDICTED = ('boxes', 'score')
RECALLS = np.linspace(0, 1, 101)  # of COCO's average precision
LEVELS = 10


def find_headline(about):
  """Average precision at IoU 0.5, which is what MUSCLE's table must be, and its plain mean over kinds."""
  return 'AP50'


def prepare(about, rows):
  return rows | {'matched': match_boxes(rows, len(about['box_classes']))}


def make_measure(about, rows):
  """COCO's average precision in 0..1 of each kind, `NAME: KIND`, and the mean over the kinds that have a true box:
  'AP50' at IoU 0.5, 'AP50-95' the mean over IoU 0.5, 0.55 ... 0.95 (Lin et al. 2014; pycocotools)."""
  kinds = [make_precision([image[kind] for image in rows['matched']]) for kind in range(len(about['box_classes']))]

  def measure(weights_NR):
    each = np.stack([kind(weights_NR) for kind in kinds])
    scores = {'AP50': each[:, 0], 'AP50-95': each.mean(1)}
    found = {name: average(values_TR) for name, values_TR in scores.items()}
    if len(kinds) > 1:
      found |= {f'{name}: {title}': row for name, values_TR in scores.items()
                for title, row in zip(about['box_classes'], values_TR, strict=True)}
    return found

  return measure


def make_precision(matched):
  """measure(weights_NR) -> (10, R), the average precision of a kind at each level of IoU; NaN where no true box is
  drawn. `matched`: (score_D, hit_LD, truths) of each image.

  Precision is looked up at the boxes that hit, where alone recall rises and precision peaks, so the running sum over
  all boxes is needed there only.
  """
  score_D, hit_LD = (np.concatenate([image[part] for image in matched], axis=-1) for part in (0, 1))
  order = np.argsort(-score_D, kind='stable')
  image_D = np.repeat(np.arange(len(matched)), [len(image[0]) for image in matched])[order]
  hit_LD, truths_N = hit_LD[:, order], np.array([float(image[2]) for image in matched])
  hits = [np.flatnonzero(hit_D) for hit_D in hit_LD]

  def measure(weights_NR):
    truths_R = truths_N @ weights_NR
    drawn_DR = weights_NR[image_D]
    through_DR = np.cumsum(drawn_DR, axis=0)
    level_LR = [interpolate(np.cumsum(drawn_DR[at], axis=0), through_DR[at], truths_R) for at in hits]
    return np.where(truths_R > 0, level_LR, np.nan)

  return measure


def interpolate(hits_HR, through_HR, truths_R):
  """(R,) mean of the best precision at or beyond each of 101 recalls; 0 beyond the last hit. With pycocotools' guard
  against 0 / 0, for equality to the last digit."""
  recall_RH = np.ascontiguousarray(np.nan_to_num(divide(hits_HR, truths_R)).T)
  precision_HR = hits_HR / (through_HR + np.spacing(1))
  best_HR = np.maximum.accumulate(precision_HR[::-1], axis=0)[::-1]
  best_RH = np.pad(best_HR, ((0, 1), (0, 0))).T
  return np.array([best[np.searchsorted(recall, RECALLS)].mean() for recall, best in
                   zip(recall_RH, best_RH, strict=True)])
