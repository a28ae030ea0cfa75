"""The best and the worst cases are those with the smallest and largest errors, kind by kind."""

import numpy as np

from mtpret_jax.evaluation.cases import choose_cases
from mtpret_jax.evaluation.metrics.scoring import to_objects
from mtpret_jax.tasks import KINDS

PATIENTS = np.array(['a', 'b', 'c', 'd', 'e'])


def choose(kind, about, columns, count=1):
  return choose_cases(KINDS[kind].metrics, about, {'patient': PATIENTS[:len(next(iter(columns.values())))], **columns},
                      count)


def test_classification_of_independent_findings_counts_known_labels_only():
  columns = {'score': np.array([[0.9, 0.1], [0.6, 0.0], [0.2, 1.0], [0.5, 0.5]]),
             'present': np.array([[1, 0], [1, 0], [1, 0], [1, 1]]),
             'label_mask': np.array([[1, 1], [1, 0], [1, 0], [0, 0]], bool)}
  about = {'findings': ['x', 'y'], 'relation': 'independent'}
  assert choose('classification', about, columns) == {'worst': [2], 'best': [0]}


def test_classification_of_classes_takes_the_probability_of_the_true_one():
  columns = {'score': np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]), 'present': np.eye(3)[[1, 1, 2]],
             'label_mask': np.ones((3, 3), bool)}
  assert choose('classification', {'findings': ['x', 'y', 'z'], 'relation': 'ordinal'}, columns) == {
    'worst': [0], 'best': [1]}


def test_regression_takes_the_absolute_error():
  columns = {'predicted': np.array([[3.0], [1.0], [0.0], [2.5]]), 'value': np.array([[1.0], [1.5], [9.0], [2.4]])}
  assert choose('regression', {'value': {'name': 'age', 'unit': 'months'}}, columns, count=2) == {
    'worst': [2, 0], 'best': [3, 1]}


def test_segmentation_takes_dice_and_leaves_out_images_without_annotation():
  confusion = np.array([[[9, 1], [0, 10]], [[10, 0], [10, 0]], [[0, 0], [0, 0]], [[10, 0], [0, 10]]])
  assert choose('segmentation', {'mask': ['background', 'lung']}, {'confusion': confusion}) == {
    'worst': [1], 'best': [3]}


def test_detection_counts_missed_boxes_and_false_boxes_by_their_score():
  box, other = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]
  predicted = [([box], [0.9]), ([], []), ([other], [0.2]), ([box, other], [0.8, 0.7])]  # right, missed, both, one false
  columns = {'boxes': to_objects(np.array(boxes, float).reshape(-1, 4) for boxes, _ in predicted),
             'class_id': to_objects(np.zeros(len(boxes), int) for boxes, _ in predicted),
             'score': to_objects(np.array(scores, float) for _, scores in predicted),
             'truth_boxes': to_objects(np.array([box], float) for _ in predicted),
             'truth_class_id': to_objects(np.zeros(1, int) for _ in predicted), 'sizes': np.full((4, 2), 100)}
  assert choose('detection', {'box_classes': ['tooth']}, columns, count=2) == {'worst': [2, 1], 'best': [0, 3]}


def test_no_image_is_among_the_best_and_the_worst():
  columns = {'predicted': np.zeros((3, 1)), 'value': np.array([[1.0], [2.0], [3.0]])}
  assert choose('regression', {'value': {'name': 'age', 'unit': ''}}, columns, count=8) == {'worst': [2], 'best': [0]}
