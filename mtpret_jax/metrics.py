"""Scores and their intervals. numpy and scikit-learn only."""

import numpy as np
from sklearn.metrics import roc_auc_score


def mean_auroc(present_NT, known_NT, score_NT):
  """The mean over findings of the area under the ROC curve, in 0..1, over the images where the finding is known.
  Findings of which only one class is there are left out; None where none is left."""
  areas = [roc_auc_score(present[known], score[known])
           for present, known, score in zip(present_NT.T, known_NT.T, score_NT.T, strict=True)
           if 0 < present[known].sum() < known.sum()]
  return float(np.mean(areas)) if areas else None


def bootstrap_interval(score, patients, *, resamples, seed=0):
  """A 95 % percentile interval of `score(rows)` when patients, with all their images, are drawn with replacement
  (Efron and Tibshirani 1993). `patients`: one name per row. None where no resample gives a score."""
  rng = np.random.default_rng(seed)
  names, owner = np.unique(patients, return_inverse=True)
  rows_of = [np.flatnonzero(owner == index) for index in range(len(names))]
  drawn = (np.concatenate([rows_of[i] for i in rng.integers(len(names), size=len(names))]) for _ in range(resamples))
  scores = [value for rows in drawn if (value := score(rows)) is not None]
  return tuple(float(edge) for edge in np.percentile(scores, [2.5, 97.5])) if scores else None
