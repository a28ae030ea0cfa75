"""Bootstrap over patients: 95 % percentile intervals (Efron and Tibshirani 1993, chapter 13).

Each resample draws as many patients as there are, with replacement, and takes all images of every drawn patient. The
caller chooses the number of resamples (`config.resamples`). The interval goes from the 2.5th to the 97.5th percentile
of the score over the resamples.

Drawing an image k times gives the same score as giving it the weight k. A resample is therefore a column of integer
weights, and every `make_*` function of this package fixes the predictions and returns a function of weights:

    weights_NR, (N, R) for N images and R resamples  ->  (R,), one score for each resample,
                                                         or {name of a score: (R,)}

A few matrix products then give the scores of all R resamples at once. Called with one column of ones, the function
returns the score of the predictions themselves. NaN stands for a score that is undefined in a resample.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

WeightedScore = Callable[[np.ndarray], np.ndarray]  # weights_NR -> (R,)
WeightedScores = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights_NR -> {name: (R,)}

CHUNK = 50  # resamples at a time: for 10,000 images their weights take 4 MB


def draw_patients(patients: Sequence[str] | np.ndarray, resamples: int,
                  seed: int) -> tuple[np.ndarray, Iterator[np.ndarray]]:
  """(owner_N, draws): the index of each image's patient, and for each resample the indices of the drawn patients."""
  rng = np.random.default_rng(seed)
  names, owner_N = np.unique(patients, return_inverse=True)
  return owner_N, (rng.integers(len(names), size=len(names)) for _ in range(resamples))


def draw_weights(patients: Sequence[str] | np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yields weights_NR for up to CHUNK resamples at a time: how often each image is drawn.

  It draws the same patients as `bootstrap_interval` does with the same seed."""
  owner_N, draws = draw_patients(patients, resamples, seed)
  counts = (np.bincount(drawn, minlength=len(drawn)).astype(float) for drawn in draws)
  for start in range(0, resamples, CHUNK):
    chunk = [next(counts) for _ in range(min(CHUNK, resamples - start))]
    yield np.stack(chunk, axis=1)[owner_N]


def find_interval(values_R: np.ndarray) -> tuple[float, float] | None:
  """(low, high), the middle 95 % of the values that are not NaN; None if all are NaN."""
  values_R = values_R[~np.isnan(values_R)]
  if not len(values_R):
    return None
  low, high = np.percentile(values_R, [2.5, 97.5])
  return float(low), float(high)


def bootstrap_interval(score: Callable[[np.ndarray], float | None], patients: Sequence[str] | np.ndarray, *,
                       resamples: int, seed: int = 0) -> tuple[float, float] | None:
  """The 95 % interval of any score, slowly: `score(rows)` is called with the image indices of each resample.

  Args:
    score: returns None where the score is undefined; such resamples are left out.
    patients: the patient of each image.

  Returns:
    (low, high), or None if the score is undefined in every resample.
  """
  owner_N, draws = draw_patients(patients, resamples, seed)
  rows_of = [np.flatnonzero(owner_N == index) for index in range(owner_N.max() + 1)]
  scores = [score(np.concatenate([rows_of[index] for index in drawn])) for drawn in draws]
  return find_interval(np.array(scores, float))
