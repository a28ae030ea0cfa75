"""Detection scores: COCO's average precision of predicted bounding boxes.

Boxes are matched once. In a resample, the matches of an image count as often as the image is drawn. pycocotools gives
the same on a dataset in which drawn images are repeated, except for the order of boxes with equal scores.
"""

from collections.abc import Sequence

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore, WeightedScores
from mtpret_jax.evaluation.metrics.box_thresholds import THRESHOLDS
from mtpret_jax.evaluation.metrics.matching import match_boxes
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows, to_objects

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision off the curve


def find_headline(about: About) -> str:
  """Average precision at IoU 0.5, unweighted mean over classes. MUSCLE's table does not name its IoU; we infer
  0.5 from its figures."""
  return 'AP50'


def prepare(about: About, rows: Rows) -> Rows:
  """Adds `matched`, and `matched_any`, the matches if all boxes had the same class."""
  merged = {name: to_objects(np.minimum(image, 0) for image in rows[name]) for name in ('class_id', 'truth_class_id')}
  return dict(rows) | {'matched': match_boxes(rows, len(about['box_classes'])),
                       'matched_any': match_boxes({**rows, **merged}, 1)}


def make_scorer(about: About, rows: Rows) -> WeightedScores:
  """COCO's average precision in 0..1 of each class as 'NAME: CLASS', and as 'NAME' the mean over the classes that have
  a true box. 'AP50' is at IoU 0.5; 'AP50-95' is the mean over IoU 0.5, 0.55 ... 0.95 (Lin et al. 2014; pycocotools).

  'AP50: any class' takes all boxes as one class: the category-agnostic detection of TBX11K's protocol, as SymFormer
  (Liu et al. 2023) reports it."""
  precisions = [make_average_precision([image[class_id] for image in rows['matched']])
                for class_id in range(len(about['box_classes']))]
  # At IoU 0.5 only: all ten levels would take almost as long as the classes together.
  any_class = make_average_precision([(score_D, hit_LD[:1], truths) for (score_D, hit_LD, truths), in
                                      rows['matched_any']])

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    precision_TLR = np.stack([precision(weights_NR) for precision in precisions])
    scores = {'AP50': precision_TLR[:, 0], 'AP50-95': precision_TLR.mean(1)}
    found = {name: average(values_TR) for name, values_TR in scores.items()}
    if len(precisions) > 1:
      found |= {f'{name}: {title}': row for name, values_TR in scores.items()
                for title, row in zip(about['box_classes'], values_TR, strict=True)}
      found['AP50: any class'] = any_class(weights_NR)[0]
    return found

  return compute


def make_average_precision(matched: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> WeightedScore:
  """weights_NR -> (L, R), the average precision of one class at L = 10 levels of IoU; NaN where no true box is drawn.

  Recall rises only at a true positive, and precision peaks there. So the cumulative sums over all boxes are evaluated
  only at the true positives.

  Args:
    matched: of each image (score_D, hit_LD, truths): scores of its D boxes, which of them are true positives at each
      level, and the number of true boxes.
  """
  score_D, hit_LD = (np.concatenate([image[part] for image in matched], axis=-1) for part in (0, 1))
  order = np.argsort(-score_D, kind='stable')
  image_D = np.repeat(np.arange(len(matched)), [len(image[0]) for image in matched])[order]
  hit_LD, truths_N = hit_LD[:, order], np.array([float(image[2]) for image in matched])
  hits = [np.flatnonzero(hit_D) for hit_D in hit_LD]

  def compute(weights_NR: np.ndarray) -> np.ndarray:
    truths_R = truths_N @ weights_NR
    drawn_DR = weights_NR[image_D]
    through_DR = np.cumsum(drawn_DR, axis=0)
    level_LR = [interpolate(np.cumsum(drawn_DR[at], axis=0), through_DR[at], truths_R) for at in hits]
    return np.where(truths_R > 0, level_LR, np.nan)

  return compute


def interpolate(hits_HR: np.ndarray, through_HR: np.ndarray, truths_R: np.ndarray) -> np.ndarray:
  """(R,) COCO's average precision: the mean over 101 recalls of the best precision at or beyond that recall, and 0
  beyond the last true positive.

  Args:
    hits_HR: for each of the H true positives, in descending order of score, the number of true positives up to and
      including it.
    through_HR: the number of boxes up to and including it.
    truths_R: true boxes.
  """
  recall_RH = np.ascontiguousarray(np.nan_to_num(divide(hits_HR, truths_R)).T)
  precision_HR = hits_HR / (through_HR + np.spacing(1))  # pycocotools adds this, too: the result is equal bit for bit
  best_HR = np.maximum.accumulate(precision_HR[::-1], axis=0)[::-1]
  best_RH = np.pad(best_HR, ((0, 1), (0, 0))).T
  return np.array([best[np.searchsorted(recall, RECALLS)].mean() for recall, best in
                   zip(recall_RH, best_RH, strict=True)])


def find_errors(about: About, rows: Rows) -> np.ndarray:
  """(N,) missed boxes plus false boxes at IoU 0.5, each predicted box counting as much as its score."""
  return np.array([sum(truths + score_D.sum() - 2 * (score_D * hit_LD[0]).sum() for score_D, hit_LD, truths in image)
                   for image in rows['matched']])


def name_columns(about: About) -> list[str]:
  return ['rows', 'columns', 'box', 'class', 'score', 'y0', 'x0', 'y1', 'x1']


def write_lines(about: About, rows: Rows) -> list[list[list]]:
  """One line per box; an image without boxes gets one line with empty cells. Empty slots (class -1) are not written."""
  names = about['box_classes']
  fields = (rows[name] for name in ('sizes', 'boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id'))
  images = []
  for size, boxes, classes, scores, truth_boxes, truth_classes in zip(*fields, strict=True):
    lines: list[list] = [['predicted', names[class_id], float(score), *map(float, box)]
                         for box, class_id, score in zip(boxes, classes, scores, strict=True) if class_id >= 0]
    lines += [['true', names[class_id], '', *map(float, box)]
              for box, class_id in zip(truth_boxes, truth_classes, strict=True) if class_id >= 0]
    images.append([[*map(int, size), *line] for line in lines or [[''] * 7]])
  return images


def read_lines(about: About, images: Sequence) -> dict[str, np.ndarray]:
  rows = {'sizes': np.array([[int(side) for side in lines[0][:2]] for lines in images]).reshape(-1, 2)}
  for box, prefix in (('predicted', ''), ('true', 'truth_')):
    chosen = [[line[3:] for line in lines if line[2] == box] for lines in images]
    rows[f'{prefix}boxes'] = to_objects(np.array([line[2:] for line in lines], float).reshape(-1, 4)
                                        for lines in chosen)
    rows[f'{prefix}class_id'] = to_objects(np.array([about['box_classes'].index(line[0]) for line in lines], int)
                                           for lines in chosen)
    if box == 'predicted':
      rows['score'] = to_objects(np.array([line[1] for line in lines], float) for lines in chosen)
  return rows


METRICS = Metrics(
  task='detection', columns=('boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id', 'sizes'),
  predicted=('boxes', 'score'), find_headline=find_headline, prepare=prepare, make_scorer=make_scorer,
  name_columns=name_columns, write_lines=write_lines, read_lines=read_lines,
  ragged=('boxes', 'class_id', 'score', 'truth_boxes', 'truth_class_id'), thresholds=THRESHOLDS,
  find_errors=find_errors)
