"""Studies of several radiographs, judged by the mean of what their images score (MURA: Rajpurkar et al. 2018)."""

import numpy as np

from mtpret_jax.evaluation.metrics.kappa import make_kappa
from mtpret_jax.evaluation.metrics.nan_arithmetic import average
from mtpret_jax.evaluation.metrics.ranking import make_ranking
from mtpret_jax.evaluation.metrics.threshold_metrics import decide, find_asked


def make_study_measure(about, rows):
  """measure(weights_NR) -> {'AUC by study', 'kappa by study'}, means over findings; {} where no image names its study.

  A finding is present in a study if it is in one of its images, and known if it is in one of them. A study is drawn as
  often as its patient.
  """
  named = np.flatnonzero(rows['study'] != '')
  if not len(named):
    return lambda weights_NR: {}
  _, first, study_N = np.unique(rows['study'][named], return_index=True, return_inverse=True)
  known_NT = rows['label_mask'][named]
  count_ST, total_ST, present_ST = np.zeros((3, len(first), known_NT.shape[1]))
  np.add.at(count_ST, study_N, known_NT)
  np.add.at(total_ST, study_N, np.where(known_NT, rows['score'][named], 0))
  np.maximum.at(present_ST, study_N, np.where(known_NT, rows['present'][named], 0))
  score_ST, known_ST = total_ST / np.maximum(count_ST, 1), count_ST > 0
  decided_ST = decide(about, score_ST)
  asked = find_asked(about)
  ranks = [make_ranking(present_ST[:, t], score_ST[:, t], known_ST[:, t]) for t in asked]
  if about['relation'] == 'independent':
    kappas = [make_kappa(present_ST[:, t].astype(int), decided_ST[:, t].astype(int), 2, known_ST[:, t], power=0)
              for t in asked]
  else:
    kappas = [make_kappa(present_ST.argmax(1), decided_ST.argmax(1), known_ST.shape[1], known_ST.all(1), power=0)]

  def measure(weights_NR):
    weights_SR = weights_NR[named[first]]
    return {'AUC by study': average([rank(weights_SR)['AUC'] for rank in ranks]),
            'kappa by study': average([kappa(weights_SR) for kappa in kappas])}

  return measure
