"""Intervals without width."""

import numpy as np

from mtpret_jax.evaluation.metrics import score
from mtpret_jax.evaluation.metrics.flat_intervals import list_flat, note_flat
from tests.support.scored import ABOUT, METRICS, make_rows


def make_result(perfect):
  """The scores of a finding whose predictions are all right, or not."""
  rows = make_rows('two')
  if perfect:
    rows['score'] = np.where(rows['present'] > 0, 0.9, 0.1)
  return score(METRICS['classification'], ABOUT['two'], rows, resamples=20)


def test_scores_that_every_resample_gives_have_a_note():
  note, = note_flat({'mass': make_result(perfect=True), 'other': make_result(perfect=False)})
  assert note == (
    'task mass: every resample of the 36 patients gives the same AUC, AP, accuracy, sensitivity, specificity and 1 '
    'more; AUC in 2 subgroups, so these intervals have no width. That does not mean that the scores are certain')


def test_the_scores_and_the_subgroups_without_width_are_listed():
  result = {'headline': 'AP50', 'scores': {'AP50': {'interval': (0.0, 0.5)}, 'AP50-95': {'interval': (1.0, 1.0)},
                                           'n': {'interval': None}},
            'groups': [{'interval': (0.0, 0.0)}, {'interval': None}]}
  assert list_flat(result) == 'AP50-95; AP50 in 1 subgroup'
  assert list_flat(result | {'groups': []}) == 'AP50-95'
  assert list_flat(result | {'scores': {}}) == 'AP50 in 1 subgroup'
