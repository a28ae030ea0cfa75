"""Percentile intervals when patients, with all their images, are drawn with replacement (Efron and Tibshirani 1993)."""

import numpy as np

CHUNK = 50  # resamples at a time: their weights of 10,000 images take 4 MB


def draw_patients(patients, resamples, seed):
  """(owner_N, draws): the number of each row's patient, and for each resample the numbers of the patients drawn."""
  rng = np.random.default_rng(seed)
  names, owner = np.unique(patients, return_inverse=True)
  return owner, (rng.integers(len(names), size=len(names)) for _ in range(resamples))


def draw_weights(patients, resamples, seed):
  """Yields weights_NR, how often each row is drawn in up to CHUNK resamples; the patients are those that
  `bootstrap_interval` draws."""
  owner, draws = draw_patients(patients, resamples, seed)
  counts = (np.bincount(drawn, minlength=len(drawn)).astype(float) for drawn in draws)
  for start in range(0, resamples, CHUNK):
    chunk = [next(counts) for _ in range(min(CHUNK, resamples - start))]
    yield np.stack(chunk, axis=1)[owner]


def find_interval(values_R):
  """The middle 95 % of the resamples that are not NaN, as (low, high); None where all are."""
  values_R = values_R[~np.isnan(values_R)]
  return tuple(float(edge) for edge in np.percentile(values_R, [2.5, 97.5])) if len(values_R) else None


def bootstrap_interval(score, patients, *, resamples, seed=0):
  """A 95 % interval of any `score(rows)`, called once for each resample. `patients`: one name per row. Resamples where
  it gives None are left out; None where all do."""
  owner, draws = draw_patients(patients, resamples, seed)
  rows_of = [np.flatnonzero(owner == index) for index in range(owner.max() + 1)]
  scores = [score(np.concatenate([rows_of[i] for i in drawn])) for drawn in draws]
  return find_interval(np.array(scores, float))
