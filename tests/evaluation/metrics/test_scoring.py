"""Intervals against what is known of them."""

import numpy as np
import pytest

from mtpret_jax.evaluation.metrics import bootstrap_interval

rng = np.random.default_rng(0)


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
