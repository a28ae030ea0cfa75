"""Average precision against pycocotools, on the images and on resamples of them."""

import numpy as np
import pytest

from mtpret_jax.evaluation.metrics import bootstrap_interval, score
from mtpret_jax.evaluation.metrics.detection import make_average_precision
from mtpret_jax.evaluation.metrics.matching import match_boxes
from tests.support.coco import average, evaluate
from tests.support.scored import ABOUT, METRICS, make_rows

KINDS = len(ABOUT['boxes']['box_classes'])


@pytest.mark.parametrize('seed', range(3))
def test_each_kind_and_the_mean_are_those_of_pycocotools(seed):
  rows = make_rows('boxes', seed=seed)
  precision = evaluate(rows, range(90), KINDS)
  scores = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']
  assert scores['AP50']['value'] == pytest.approx(average(precision[0]), abs=1e-14)
  assert scores['AP50-95']['value'] == pytest.approx(average(precision), abs=1e-14)
  for kind, title in enumerate(ABOUT['boxes']['box_classes'][:2]):
    assert scores[f'AP50: {title}']['value'] == precision[0, :, kind].mean()
    assert scores[f'AP50-95: {title}']['value'] == pytest.approx(precision[:, :, kind].mean(), abs=1e-14)
  assert scores['AP50: none'] == {'value': None, 'interval': None}
  agnostic = evaluate(rows | {name: [np.minimum(image, 0) for image in rows[name]]
                              for name in ('class_id', 'truth_class_id')}, range(90), 1)
  assert scores['AP50: any class']['value'] == pytest.approx(average(agnostic[0]), abs=1e-14)


def test_every_level_of_overlap_is_exactly_that_of_pycocotools():
  rows = make_rows('boxes')
  rows['score'] = np.array([np.round(image, 1) for image in rows['score']], object)  # ties, too
  precision, matched = evaluate(rows, range(90), KINDS), match_boxes(rows, KINDS)
  for kind in range(2):
    level_L1 = make_average_precision([image[kind] for image in matched])(np.ones((90, 1)))
    np.testing.assert_array_equal(level_L1[:, 0], precision[:, :, kind].mean(1))


def test_the_interval_is_that_of_matching_each_resample_anew():
  rows = make_rows('boxes', images=30)
  result = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=12, seed=3)
  for name, levels in (('AP50', slice(1)), ('AP50-95', slice(None))):
    slow = bootstrap_interval(lambda drawn, at=levels: average(evaluate(rows, drawn, KINDS)[at]), rows['patient'],
                              resamples=12, seed=3)
    assert result['scores'][name]['interval'] == pytest.approx(slow, abs=1e-12)


def test_images_without_any_box_count_as_pycocotools_counts_them():
  rows = make_rows('boxes', images=12)
  for image in range(0, 12, 3):  # nothing is there, and nothing or something is found
    rows['truth_class_id'][image][:] = -1
    rows['class_id'][image][:] = -1 if image % 2 else 0
  rows['class_id'][4][:] = -1  # something is there, and nothing is found
  value = score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']['AP50']['value']
  assert value == pytest.approx(average(evaluate(rows, range(12), KINDS)[0]), abs=1e-14)


def test_no_prediction_at_all_scores_zero():
  rows = make_rows('boxes', images=12)
  for kinds in rows['class_id']:
    kinds[:] = -1
  assert score(METRICS['detection'], ABOUT['boxes'], rows, resamples=2)['scores']['AP50-95']['value'] == 0
