"""Matches predicted boxes with true ones, by pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtpret_jax.evaluation.metrics.scoring import Rows, to_objects

LEVELS = 10  # of IoU: 0.5, 0.55 ... 0.95
MOST = 100  # at most this many boxes per class and image are scored, as in COCO


def match_boxes(rows: Rows, classes: int) -> np.ndarray:
  """(N,) objects: for each image a list over classes of (score_D, hit_LD, truths).

  score_D are the scores of its predicted boxes in descending order, hit_LD says which of them are true positives at
  the L levels of IoU, and truths is the number of true boxes.

  Args:
    rows: `boxes` and `truth_boxes` (K, 4) as (y0, x0, y1, x1) in 0..1; `class_id`, `score` and `truth_class_id` (K,).
      Each is an object array over N images; class_id -1 is an empty slot. `sizes` (N, 2): height and width, pixels.
  """
  images = len(rows['sizes'])
  evaluation = run_cocoeval(list_ground_truth(rows), list_detections(rows), images, classes)
  return to_objects([read_match(evaluation.evalImgs[class_id * images + image]) for class_id in range(classes)]
                    for image in range(images))


def read_match(found: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray, int]:
  """(score_D, hit_LD, truths) of one image and class; pycocotools gives None where it has no box."""
  if found is None:
    return np.zeros(0), np.zeros((LEVELS, 0), bool), 0
  return np.array(found['dtScores'], float), found['dtMatches'] > 0, len(found['gtIds'])


def run_cocoeval(truths: list[dict], detections: list[dict], images: int, classes: int) -> COCOeval:
  """pycocotools' evaluation after matching, of boxes of all sizes together: we do not report COCO's AP of small, medium
  and large boxes."""
  table: dict[str, Any] = {'images': [{'id': image} for image in range(images)], 'annotations': truths,
                           'categories': [{'id': class_id} for class_id in range(classes)]}
  with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
    evaluation = COCOeval(make_coco(table), make_coco(table | {'annotations': detections}), 'bbox')
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    evaluation.params.maxDets = [MOST]
    evaluation.evaluate()
  return evaluation


def make_coco(table: dict) -> COCO:
  coco = COCO()
  coco.dataset = table
  coco.createIndex()
  return coco


def list_ground_truth(rows: Rows) -> list[dict]:
  return [annotation | {'iscrowd': 0}
          for annotation in list_annotations(rows['truth_boxes'], rows['truth_class_id'], rows['sizes'])]


def list_detections(rows: Rows) -> list[dict]:
  scores = [score for image, class_ids in zip(rows['score'], rows['class_id'], strict=True)
            for score, class_id in zip(image, class_ids, strict=True) if class_id >= 0]
  annotations = list_annotations(rows['boxes'], rows['class_id'], rows['sizes'])
  return [annotation | {'score': float(score)} for annotation, score in zip(annotations, scores, strict=True)]


def list_annotations(boxes_N: np.ndarray, class_ids_N: np.ndarray, sizes_N2: np.ndarray) -> list[dict]:
  """Annotations as COCO has them, with boxes as (x, y, width, height) in pixels. Ids start at 1: pycocotools takes a
  match with id 0 for no match."""
  annotations: list[dict] = []
  for image, (boxes, class_ids, (height, width)) in enumerate(zip(boxes_N, class_ids_N, sizes_N2.tolist(),
                                                                  strict=True)):
    for (y0, x0, y1, x1), class_id in zip(np.asarray(boxes, float).reshape(-1, 4).tolist(), class_ids, strict=True):
      if class_id >= 0:
        box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
        annotations.append({'id': len(annotations) + 1, 'image_id': image, 'category_id': int(class_id), 'bbox': box,
                            'area': box[2] * box[3]})
  return annotations
