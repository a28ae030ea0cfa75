"""Classification scores: which findings are present, by their predicted probabilities."""

from collections.abc import Sequence

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.calibration import make_calibration_error
from mtpret_jax.evaluation.metrics.finding_thresholds import THRESHOLDS
from mtpret_jax.evaluation.metrics.findings import make_finding_scores
from mtpret_jax.evaluation.metrics.kappa import make_kappa
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows
from mtpret_jax.evaluation.metrics.studies import make_study_scores
from mtpret_jax.evaluation.metrics.threshold_metrics import list_scored_findings, predict_labels


def find_headline(about: About) -> str:
  """The name of the headline score: AUC, or for ordinal findings the quadratic kappa. The latter is our choice; the
  papers have no such task."""
  return 'quadratic kappa' if about['relation'] == 'ordinal' else 'AUC'


def prepare(about: About, rows: Rows) -> Rows:
  """Leaves out images without a label. For mutually exclusive findings, also leaves out images whose label does not say
  which one is present. `score` (probabilities), `present` and `label_mask` are (N, T)."""
  present_NT, label_mask_NT = rows['present'] > 0, rows['label_mask'].astype(bool)
  if about['relation'] == 'independent':
    kept_N = label_mask_NT.any(1)
  else:
    kept_N = (label_mask_NT & present_NT).sum(1) == 1
    label_mask_NT = np.broadcast_to(kept_N[:, None], label_mask_NT.shape)
  arrays = dict(rows) | {'score': rows['score'].astype(float), 'present': present_NT, 'label_mask': label_mask_NT}
  return {name: values[kept_N] for name, values in arrays.items()}


def make_scorer(about: About, rows: Rows) -> WeightedScores:
  """The mean of each score over the findings as 'NAME' and, if there are several findings, the score of each as
  'NAME: FINDING'.

  In each resample, a mean is over the findings for which the score is defined: AUC and AP need images with and without
  the finding. Mutually exclusive findings are scored one versus the rest. They also have `accuracy`, the share of
  images whose likeliest finding is the true one; ordinal findings also have 'quadratic kappa' and 'MAE (grades)'.
  """
  scored = list_scored_findings(about)
  predicted_NT = predict_labels(about, rows['score'])
  findings = [make_finding_scores(*(values_NT[:, t] for values_NT in (rows['present'], rows['score'], predicted_NT,
                                                                      rows['label_mask']))) for t in scored]
  exclusive = about['relation'] != 'independent'
  calibrations = [] if exclusive else [
    make_calibration_error(*(rows[name][:, t] for name in ('present', 'score', 'label_mask'))) for t in scored]
  compute_exclusive = make_exclusive_scores(about, rows) if exclusive else lambda weights_NR: {}
  compute_studies = make_study_scores(about, rows)

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    by_finding = [finding(weights_NR) for finding in findings]
    for scores, calibration in zip(by_finding, calibrations):  # noqa: B905 exclusive findings have no calibrations
      scores['ECE'] = calibration(weights_NR)
    found = {name: average([scores[name] for scores in by_finding]) for name in by_finding[0]}
    # for exclusive findings this replaces the mean accuracy of one versus the rest
    found |= compute_exclusive(weights_NR) | compute_studies(weights_NR)
    if len(scored) > 1:
      found |= {f'{name}: {about["findings"][t]}': scores[name] for name in by_finding[0]
                for t, scores in zip(scored, by_finding, strict=True) if not (exclusive and name == 'accuracy')}
    return found

  return compute


def make_exclusive_scores(about: About, rows: Rows) -> WeightedScores:
  """Scores of the likeliest of mutually exclusive findings: 'accuracy', 'ECE' of its probability and, for ordinal
  findings, 'quadratic kappa' and 'MAE (grades)', the mean number of grades between prediction and truth."""
  truth_N, predicted_N = rows['present'].argmax(1), rows['score'].argmax(1)
  correct_N, grades_N = (truth_N == predicted_N).astype(float), np.abs(truth_N - predicted_N).astype(float)
  valid_N = np.ones(len(truth_N), bool)
  compute_calibration = make_calibration_error(correct_N, rows['score'].max(1), valid_N)
  compute_kappa = make_kappa(truth_N, predicted_N, rows['score'].shape[1], valid_N, power=2)

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    count = weights_NR.sum(0)
    scores = {'accuracy': divide(correct_N @ weights_NR, count), 'ECE': compute_calibration(weights_NR)}
    if about['relation'] == 'ordinal':
      scores |= {'quadratic kappa': compute_kappa(weights_NR), 'MAE (grades)': divide(grades_N @ weights_NR, count)}
    return scores

  return compute


def find_errors(about: About, rows: Rows) -> np.ndarray:
  """(N,) in 0..1: |probability - label|, averaged over the known findings; or 1 - the probability of the true one."""
  if about['relation'] != 'independent':
    return 1 - (rows['score'] * rows['present']).sum(1)
  return np.average(np.abs(rows['score'] - rows['present']), axis=1, weights=rows['label_mask'])


def name_columns(about: About) -> list[str]:
  return [f'{title}: {name}' for title in ('probability', 'present') for name in about['findings']]


def write_lines(about: About, rows: Rows) -> list[list[list]]:
  """One line per image; a finding that is not known is an empty cell."""
  present_NT = np.where(rows['label_mask'], rows['present'].astype(int).astype(object), '')
  return [[[*score, *present]] for score, present in zip(rows['score'].tolist(), present_NT.tolist(), strict=True)]


def read_lines(about: About, images: Sequence) -> dict[str, np.ndarray]:
  cells_NC = np.array([line for line, in images], object).reshape(len(images), len(name_columns(about)))
  score_NT, present_NT = np.hsplit(np.where(cells_NC != '', cells_NC, 0).astype(float), 2)
  return {'score': score_NT, 'present': present_NT, 'label_mask': (np.hsplit(cells_NC, 2)[1] != '').astype(bool)}


METRICS = Metrics(
  task='classification', columns=('score', 'present', 'label_mask'), predicted=('score',),
  find_headline=find_headline, prepare=prepare, make_scorer=make_scorer, name_columns=name_columns,
  write_lines=write_lines, read_lines=read_lines, thresholds=THRESHOLDS, find_errors=find_errors)
