"""The area under the ROC curve as scikit-learn has it."""

import numpy as np
from sklearn.metrics import roc_auc_score


def mean_auroc(present_NT, known_NT, score_NT):
  """The mean over findings of the area under the ROC curve, in 0..1, over the images where the finding is known.
  Findings of which only one class is there are left out; None where none is left."""
  areas = [roc_auc_score(present[known], score[known])
           for present, known, score in zip(present_NT.T, known_NT.T, score_NT.T, strict=True)
           if 0 < present[known].sum() < known.sum()]
  return float(np.mean(areas)) if areas else None
