"""Predicted boxes matched with true ones, once, by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

MOST = 100  # boxes of a kind in an image that count, as in COCO


def match_boxes(rows, kinds):
  """(N,) objects: for each image a list over kinds of (score_D, hit_LD, truths), the scores of its boxes from the
  highest down, which of them hit a true box at the L levels of IoU 0.5, 0.55 ... 0.95, and the number of true boxes.

  rows: `boxes` and `truth_boxes` (K, 4) as (y0, x0, y1, x1) in 0-1, `class_id`, `score`, `truth_class_id` (K,), object arrays
  over N images; kind -1 is an empty slot. `sizes` (N, 2): rows and columns, pixels.
  """
  evaluation = evaluate(list_truths(rows), list_boxes(rows), len(rows['sizes']), kinds)
  matched = np.empty(len(rows['sizes']), object)
  for image in range(len(matched)):
    matched[image] = []
    for kind in range(kinds):
      found = evaluation.evalImgs[kind * len(matched) + image]
      matched[image].append((np.zeros(0), np.zeros((10, 0), bool), 0) if found is None else (
        np.array(found['dtScores'], float), found['dtMatches'] > 0, len(found['gtIds'])))
  return matched


def evaluate(truths, boxes, images, kinds):
  """pycocotools' evaluation after matching. Only boxes of all sizes, since no other average precision is asked for."""
  table = {'images': [{'id': image} for image in range(images)], 'annotations': truths,
           'categories': [{'id': kind} for kind in range(kinds)]}
  with contextlib.redirect_stdout(io.StringIO()):
    evaluation = COCOeval(make_coco(table), make_coco(table | {'annotations': boxes}), 'bbox')
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    evaluation.params.maxDets = [MOST]
    evaluation.evaluate()
  return evaluation


def make_coco(table):
  coco = COCO()
  coco.dataset = table
  coco.createIndex()
  return coco


def list_truths(rows):
  return [mark | {'iscrowd': 0} for mark in list_marks(rows['truth_boxes'], rows['truth_class_id'], rows['sizes'])]


def list_boxes(rows):
  scores = [score for image, kinds in zip(rows['score'], rows['class_id'], strict=True)
            for score, kind in zip(image, kinds, strict=True) if kind >= 0]
  marks = list_marks(rows['boxes'], rows['class_id'], rows['sizes'])
  return [mark | {'score': float(score)} for mark, score in zip(marks, scores, strict=True)]


def list_marks(boxes_N, kinds_N, sizes_N2):
  """COCO's annotations: (x, y, width, height) in pixels. Ids start at 1, since pycocotools takes a match with 0 for
  none."""
  marks = []
  for image, (boxes, kinds, (height, width)) in enumerate(zip(boxes_N, kinds_N, sizes_N2.tolist(), strict=True)):
    for (y0, x0, y1, x1), kind in zip(np.asarray(boxes, float).reshape(-1, 4).tolist(), kinds, strict=True):
      if kind >= 0:
        box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
        marks.append({'id': len(marks) + 1, 'image_id': image, 'category_id': int(kind), 'bbox': box,
                      'area': box[2] * box[3]})
  return marks
