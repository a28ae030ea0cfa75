"""Which findings are present, by their probabilities."""

import numpy as np

from mtpret_jax.evaluation.metrics.calibration import make_calibration
from mtpret_jax.evaluation.metrics.findings import make_finding
from mtpret_jax.evaluation.metrics.kappa import make_kappa
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.studies import make_study_measure
from mtpret_jax.evaluation.metrics.threshold_metrics import decide, find_asked

COLUMNS = ('score', 'present', 'label_mask')
PREDICTED = ('score',)


def find_headline(about):
  """That it is the quadratic kappa where findings have an order is our choice; the papers have no such task."""
  return 'quadratic kappa' if about['relation'] == 'ordinal' else 'AUC'


def prepare(about, rows):
  """Leaves out images of which no finding is known and, where exactly one is present, those of which it is not known
  which. `score` (probabilities), `present` and `label_mask` are (N, T)."""
  present_NT, known_NT = rows['present'] > 0, rows['label_mask'].astype(bool)
  if about['relation'] == 'independent':
    counts_N = known_NT.any(1)
  else:
    counts_N = (known_NT & present_NT).sum(1) == 1
    known_NT = np.broadcast_to(counts_N[:, None], known_NT.shape)
  rows = rows | {'score': rows['score'].astype(float), 'present': present_NT, 'label_mask': known_NT}
  return {name: values[counts_N] for name, values in rows.items()}


def make_measure(about, rows):
  """The scores of each finding asked about, `NAME: FINDING` where these are several, and their means, `NAME`.

  A mean is over the findings for which the score is defined, in each resample anew: AUC and AP need both classes.
  Where findings exclude each other each is told from all others, and `accuracy` is the share of images whose finding is
  named rightly; 'quadratic kappa' and 'MAE (grades)' are of those with an order.
  """
  asked = find_asked(about)
  decided_NT = decide(about, rows['score'])
  findings = [make_finding(*(values_NT[:, t] for values_NT in (rows['present'], rows['score'], decided_NT,
                                                               rows['label_mask']))) for t in asked]
  one_of = about['relation'] != 'independent'
  calibrations = [] if one_of else [make_calibration(*(rows[name][:, t] for name in ('present', 'score', 'label_mask')))
                                    for t in asked]
  measure_whole = make_one_measure(about, rows) if one_of else lambda weights_NR: {}
  measure_studies = make_study_measure(about, rows)

  def measure(weights_NR):
    each = [finding(weights_NR) for finding in findings]
    for scores, calibration in zip(each, calibrations):  # noqa: B905 the second is empty where one of several is named
      scores['ECE'] = calibration(weights_NR)
    found = {name: average([scores[name] for scores in each]) for name in each[0]}
    found |= measure_whole(weights_NR) | measure_studies(weights_NR)
    if len(asked) > 1:
      found |= {f'{name}: {about["findings"][t]}': scores[name] for name in each[0]
                for t, scores in zip(asked, each, strict=True) if not (one_of and name == 'accuracy')}
    return found

  return measure


def make_one_measure(about, rows):
  """What is asked of the one finding that is named: accuracy, calibration of its probability, and how many grades off
  it is."""
  truth_N, named_N = rows['present'].argmax(1), rows['score'].argmax(1)
  right_N, grades_N = (truth_N == named_N).astype(float), np.abs(truth_N - named_N).astype(float)
  everyone = np.ones(len(truth_N), bool)
  calibrate = make_calibration(right_N, rows['score'].max(1), everyone)
  kappa = make_kappa(truth_N, named_N, rows['score'].shape[1], everyone, power=2)

  def measure(weights_NR):
    count = weights_NR.sum(0)
    scores = {'accuracy': divide(right_N @ weights_NR, count), 'ECE': calibrate(weights_NR)}
    if about['relation'] == 'ordinal':
      scores |= {'quadratic kappa': kappa(weights_NR), 'MAE (grades)': divide(grades_N @ weights_NR, count)}
    return scores

  return measure
