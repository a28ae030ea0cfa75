"""Average precision against pycocotools, on the images and on resamples of them."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtpret_jax.evaluation.metrics import bootstrap_interval, score
from mtpret_jax.evaluation.metrics.detection import make_average_precision
from mtpret_jax.evaluation.metrics.matching import match_boxes
from tests.support.scored import ABOUT, METRICS, make_rows

KINDS = len(ABOUT['boxes']['box_classes'])


def evaluate(rows, drawn):
  """(10, 101, kinds) precisions of pycocotools with its own settings, drawn images being repeated; -1 without truth."""
  truths, boxes = [], []
  for place, image in enumerate(drawn):
    height, width = (float(side) for side in rows['sizes'][image])
    for marks, prefix in ((truths, 'truth_'), (boxes, '')):
      for index, (box, kind) in enumerate(zip(rows[f'{prefix}boxes'][image], rows[f'{prefix}class_id'][image],
                                              strict=True)):
        y0, x0, y1, x1 = (float(edge) for edge in box)
        if kind >= 0:
          mark = {'image_id': place, 'category_id': int(kind),
                  'bbox': [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]}
          marks.append(mark | ({} if prefix else {'score': float(rows['score'][image][index])}))
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = {'images': [{'id': place} for place in range(len(drawn))], 'info': {},
                    'categories': [{'id': kind} for kind in range(KINDS)],
                    'annotations': [mark | {'id': at + 1, 'iscrowd': 0, 'area': mark['bbox'][2] * mark['bbox'][3]}
                                    for at, mark in enumerate(truths)]}
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(boxes), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  precision = evaluation.eval['precision'][:, :, :, 0, 2]
  if len(drawn) == len(set(drawn)):
    assert np.mean(precision[precision > -1]) == evaluation.stats[0]
  return precision


def average(precision):
  return np.mean(precision[precision > -1])


@pytest.mark.parametrize('seed', range(3))
def test_each_kind_and_the_mean_are_those_of_pycocotools(seed):
  rows = make_rows('boxes', seed=seed)
  precision = evaluate(rows, range(90))
  scores = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']
  assert scores['AP50']['value'] == pytest.approx(average(precision[0]), abs=1e-14)
  assert scores['AP50-95']['value'] == pytest.approx(average(precision), abs=1e-14)
  for kind, title in enumerate(ABOUT['boxes']['box_classes'][:2]):
    assert scores[f'AP50: {title}']['value'] == precision[0, :, kind].mean()
    assert scores[f'AP50-95: {title}']['value'] == pytest.approx(precision[:, :, kind].mean(), abs=1e-14)
  assert scores['AP50: none'] == {'value': None, 'interval': None}


def test_every_level_of_overlap_is_exactly_that_of_pycocotools():
  rows = make_rows('boxes')
  rows['score'] = np.array([np.round(image, 1) for image in rows['score']], object)  # ties, too
  precision, matched = evaluate(rows, range(90)), match_boxes(rows, KINDS)
  for kind in range(2):
    level_L1 = make_average_precision([image[kind] for image in matched])(np.ones((90, 1)))
    np.testing.assert_array_equal(level_L1[:, 0], precision[:, :, kind].mean(1))


def test_the_interval_is_that_of_matching_each_resample_anew():
  rows = make_rows('boxes', images=30)
  result = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=12, seed=3)
  for name, levels in (('AP50', slice(1)), ('AP50-95', slice(None))):
    slow = bootstrap_interval(lambda drawn, at=levels: average(evaluate(rows, drawn)[at]), rows['patient'],
                              resamples=12, seed=3)
    assert result['scores'][name]['interval'] == pytest.approx(slow, abs=1e-12)


def test_images_without_any_box_count_as_pycocotools_counts_them():
  rows = make_rows('boxes', images=12)
  for image in range(0, 12, 3):  # nothing is there, and nothing or something is found
    rows['truth_class_id'][image][:] = -1
    rows['class_id'][image][:] = -1 if image % 2 else 0
  rows['class_id'][4][:] = -1  # something is there, and nothing is found
  value = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']['AP50']['value']
  assert value == pytest.approx(average(evaluate(rows, range(12))[0]), abs=1e-14)


def test_no_prediction_at_all_scores_zero():
  rows = make_rows('boxes', images=12)
  for kinds in rows['class_id']:
    kinds[:] = -1
  assert score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']['AP50-95']['value'] == 0
