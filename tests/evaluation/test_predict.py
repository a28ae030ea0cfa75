"""Rows of predictions become columns by what they are, not by their shape."""

import numpy as np
import pytest

from mtpret_jax.evaluation.metrics import score
from mtpret_jax.evaluation.predict import stack
from mtpret_jax.tasks import KINDS


def test_four_classes_of_pixels_are_no_four_corners_of_boxes():
  """A (4, 4) confusion matrix per image has the shape of four boxes."""
  kind, rng = KINDS['segmentation'], np.random.default_rng(0)
  about = {'mask': ['background', 'lung', 'heart', 'clavicle']}
  masks, guesses = rng.integers(0, 4, (2, 6, 8, 8))
  rows = [kind.make_row(about, {'mask': masks}, {'mask': guesses}, index) for index in range(6)]
  columns = {'confusion': stack([row['confusion'] for row in rows], 'confusion' in kind.metrics.ragged)}
  assert columns['confusion'].shape == (6, 4, 4)
  names = {name: np.array([f'{name}{index}' for index in range(6)])
           for name in ('image_id', 'patient', 'study', 'sex', 'view', 'part')}
  result = score(kind.metrics, about, names | {'age': np.full(6, np.nan)} | columns, resamples=2)
  both, sizes = (masks == guesses)[masks == 1].sum(), (masks == 1).sum() + (guesses == 1).sum()
  assert result['scores']['Dice over pixels: lung']['value'] == pytest.approx(2 * both / sizes)


def test_boxes_stay_apart_where_every_image_has_as_many():
  column = stack([np.zeros((4, 4)), np.ones((4, 4))], ragged=True)
  assert column.shape == (2,) and column.dtype == object and column[1].shape == (4, 4)
