"""Scores of studies: the probability of a study is the mean over its images (MURA: Rajpurkar et al. 2018)."""

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.kappa import make_kappa
from mtpret_jax.evaluation.metrics.nan_arithmetic import average
from mtpret_jax.evaluation.metrics.ranking import make_ranking_scores
from mtpret_jax.evaluation.metrics.scoring import About, Rows
from mtpret_jax.evaluation.metrics.threshold_metrics import list_scored_findings, predict_labels


def make_study_scores(about: About, rows: Rows) -> WeightedScores:
  """'AUC by study' and 'kappa by study', means over findings; {} where no image names its study.

  A study has a finding if one of its images has it, and a label if one of its images has one. The weight of a study is
  that of its patient.
  """
  named = np.flatnonzero(rows['study'] != '')
  if not len(named):
    return lambda weights_NR: {}
  _, first, study_N = np.unique(rows['study'][named], return_index=True, return_inverse=True)
  label_mask_NT = rows['label_mask'][named]
  count_ST, total_ST, present_ST = np.zeros((3, len(first), label_mask_NT.shape[1]))
  np.add.at(count_ST, study_N, label_mask_NT)
  np.add.at(total_ST, study_N, np.where(label_mask_NT, rows['score'][named], 0))
  np.maximum.at(present_ST, study_N, np.where(label_mask_NT, rows['present'][named], 0))
  score_ST, valid_ST = total_ST / np.maximum(count_ST, 1), count_ST > 0
  predicted_ST = predict_labels(about, score_ST)
  scored = list_scored_findings(about)
  rankings = [make_ranking_scores(present_ST[:, t], score_ST[:, t], valid_ST[:, t]) for t in scored]
  if about['relation'] == 'independent':
    kappas = [make_kappa(present_ST[:, t].astype(int), predicted_ST[:, t].astype(int), 2, valid_ST[:, t], power=0)
              for t in scored]
  else:
    kappas = [make_kappa(present_ST.argmax(1), predicted_ST.argmax(1), valid_ST.shape[1],
                         np.all(valid_ST, axis=1), power=0)]

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    weights_SR = weights_NR[named[first]]
    return {'AUC by study': average([ranking(weights_SR)['AUC'] for ranking in rankings]),
            'kappa by study': average([kappa(weights_SR) for kappa in kappas])}

  return compute
