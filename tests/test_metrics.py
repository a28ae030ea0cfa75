"""Scores against scikit-learn and against what is known of their intervals."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mtpret_jax.metrics import bootstrap_interval, mean_auroc

rng = np.random.default_rng(0)


def test_mean_auroc_is_the_mean_of_scikit_learns_over_known_images():
  present, score = rng.random((50, 3)) > 0.5, rng.normal(size=(50, 3))
  known = rng.random((50, 3)) > 0.3
  areas = [roc_auc_score(present[known[:, t], t], score[known[:, t], t]) for t in range(3)]
  assert mean_auroc(present, known, score) == pytest.approx(np.mean(areas))


def test_a_finding_with_one_class_is_left_out():
  present = np.array([[True, True], [False, True], [True, True]])
  score = np.array([[0.9, 0.1], [0.2, 0.5], [0.1, 0.3]])
  assert mean_auroc(present, np.ones_like(present), score) == 0.5
  assert mean_auroc(present[:, 1:], np.ones((3, 1), bool), score[:, 1:]) is None


def test_the_interval_of_a_mean_is_the_normal_one():
  values = rng.normal(size=400)
  low, high = bootstrap_interval(lambda rows: values[rows].mean(), np.arange(400), resamples=2000)
  width = 1.96 * values.std() / 20
  assert low == pytest.approx(values.mean() - width, abs=0.02)
  assert high == pytest.approx(values.mean() + width, abs=0.02)


def test_images_of_one_patient_are_drawn_together():
  """Ten copies of each image are no more evidence than one: the interval over patients stays as wide."""
  values = rng.normal(size=40)
  def width(copies):
    rows = np.repeat(values, copies)
    low, high = bootstrap_interval(lambda drawn: rows[drawn].mean(), np.repeat(np.arange(40), copies), resamples=500)
    return high - low
  assert width(10) == pytest.approx(width(1), rel=0.01)


def test_no_score_gives_no_interval():
  assert bootstrap_interval(lambda rows: None, np.arange(3), resamples=10) is None
