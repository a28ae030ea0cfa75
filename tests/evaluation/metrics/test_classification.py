"""Scores of findings against scikit-learn, resample by resample."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from mtpret_jax.evaluation.metrics import score
from tests.support.scored import ABOUT, METRICS, check_score, make_rows


def rank(measure, present, score):
  return measure(present, score) if 0 < present.sum() < len(present) else np.nan


def take_known(rows, finding):
  known = rows['label_mask'][:, finding]
  return rows['present'][known, finding].astype(int), rows['score'][known, finding].astype(float)


def calibrate(right, probability):
  """From scikit-learn's curve, which leaves empty bins out."""
  share, mean = calibration_curve(right, probability, n_bins=15)
  bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], probability)
  return np.abs(share - mean) @ np.unique(bins, return_counts=True)[1] / len(bins)


SLOW = {  # of (present, score) of one finding where it is known
  'AUC': lambda present, score: rank(sk.roc_auc_score, present, score),
  'AP': lambda present, score: rank(sk.average_precision_score, present, score),
  'accuracy': lambda present, score: sk.accuracy_score(present, score > 0.5),
  'sensitivity': lambda present, score: sk.recall_score(present, score > 0.5, zero_division=np.nan),
  'specificity': lambda present, score: sk.recall_score(present, score > 0.5, pos_label=0, zero_division=np.nan),
  'ECE': calibrate,
}


@pytest.mark.parametrize('name', SLOW)
@pytest.mark.parametrize('images', [23, 90])
def test_each_finding_scores_as_scikit_learn_says(name, images):
  about, rows = ABOUT['independent'], make_rows('independent', images)
  result = score(METRICS['classification'], about, rows, resamples=12, seed=3)
  kept = {column: values[rows['label_mask'].any(1)] for column, values in rows.items()}
  def of_finding(finding, drawn):
    return SLOW[name](*take_known({column: kept[column][drawn] for column in kept}, finding))
  for finding, title in enumerate(about['findings']):
    check_score(result['scores'][f'{name}: {title}'], lambda drawn, t=finding: of_finding(t, drawn), kept, 12)
  check_score(result['scores'][name], lambda drawn: np.nanmean([of_finding(t, drawn) for t in range(3)]), kept, 12)


def find_stated(rows):
  """(rows, truth, probabilities) of the images of which the finding is known."""
  kept = {column: values[rows['label_mask'].all(1)] for column, values in rows.items()}
  return kept, kept['present'].argmax(1), kept['score'].astype(float)


def test_of_two_that_exclude_each_other_the_second_is_positive():
  kept, truth, probability = find_stated(make_rows('two'))
  scores = score(METRICS['classification'], ABOUT['two'], make_rows('two'), resamples=10)['scores']
  named = probability.argmax(1)
  (kept_well, alarm), (missed, found) = sk.confusion_matrix(truth, named)
  assert scores['sensitivity']['value'] == pytest.approx(found / (found + missed))
  assert scores['specificity']['value'] == pytest.approx(kept_well / (kept_well + alarm))
  assert scores['accuracy']['value'] == pytest.approx(sk.accuracy_score(truth, named))
  assert scores['AUC']['value'] == pytest.approx(sk.roc_auc_score(truth, probability[:, 1]))
  assert scores['ECE']['value'] == pytest.approx(calibrate(truth == named, probability.max(1)))
  assert not any(': ' in name for name in scores)


def test_of_several_each_is_told_from_the_others():
  rows = make_rows('exclusive')
  kept, truth, probability = find_stated(rows)
  result = score(METRICS['classification'], ABOUT['exclusive'], rows, resamples=15, seed=3)
  check_score(result['scores']['accuracy'], lambda drawn: sk.accuracy_score(truth[drawn], probability[drawn].argmax(1)),
              kept, 15)
  check_score(result['scores']['sensitivity'],
              lambda drawn: sk.balanced_accuracy_score(truth[drawn], probability[drawn].argmax(1)), kept, 15)
  check_score(result['scores']['AUC: c'], lambda drawn: sk.roc_auc_score(truth[drawn] == 2, probability[drawn, 2]),
              kept, 15)
  assert result['images'] == len(truth) and result['left_out'] == len(rows['label_mask']) - len(truth) > 0


def test_grades_have_a_quadratic_kappa_and_an_error_in_grades():
  rows = make_rows('ordinal')
  kept, truth, probability = find_stated(rows)
  result = score(METRICS['classification'], ABOUT['ordinal'], rows, resamples=25, seed=3)
  assert result['headline'] == 'quadratic kappa'
  named = probability.argmax(1)
  check_score(result['scores']['quadratic kappa'],
              lambda drawn: sk.cohen_kappa_score(truth[drawn], named[drawn], weights='quadratic'), kept, 25)
  check_score(result['scores']['MAE (grades)'],
              lambda drawn: sk.mean_absolute_error(truth[drawn], named[drawn]), kept, 25)


def test_a_study_is_judged_by_the_mean_of_its_images():
  about = ABOUT['independent'] | {'findings': ['abnormal']}
  rows = make_rows('independent')
  rows |= {column: rows[column][:, :1] for column in ('score', 'present', 'label_mask')}
  studies = {}
  columns = (rows[column] for column in ('study', 'score', 'present', 'label_mask'))
  for study, score_1, present, known in zip(*columns, strict=True):
    if study and known[0]:
      studies.setdefault(study, []).append((float(score_1[0]), present[0]))
  assert max(map(len, studies.values())) > 1
  probability = [np.mean([score_1 for score_1, _ in images]) for images in studies.values()]
  truth = [max(present for _, present in images) for images in studies.values()]
  scores = score(METRICS['classification'], about, rows, resamples=10)['scores']
  assert scores['AUC by study']['value'] == pytest.approx(sk.roc_auc_score(truth, probability))
  assert scores['kappa by study']['value'] == pytest.approx(
    sk.cohen_kappa_score(truth, np.array(probability) > 0.5))
  rows['study'] = np.full(len(rows['study']), '')
  assert 'AUC by study' not in score(METRICS['classification'], about, rows, resamples=10)['scores']


def test_a_finding_without_both_classes_is_undefined_and_left_out_of_the_mean():
  rows = make_rows('independent')
  rows['present'][:, 1] = 0
  scores = score(METRICS['classification'], ABOUT['independent'], rows, resamples=10)['scores']
  assert scores['AUC: nodule'] == scores['sensitivity: nodule'] == {'value': None, 'interval': None}
  assert scores['AUC']['value'] == pytest.approx((scores['AUC: mass']['value'] + scores['AUC: effusion']['value']) / 2)


def test_unknown_labels_do_not_move_a_score():
  rows = make_rows('independent')
  result = score(METRICS['classification'], ABOUT['independent'], rows, resamples=10)
  guessed = rows | {'present': np.where(rows['label_mask'], rows['present'], 1),
                    'score': np.where(rows['label_mask'], rows['score'], 0.9)}
  assert score(METRICS['classification'], ABOUT['independent'], guessed, resamples=10) == result


def test_tables_that_are_all_of_one_kind_still_agree_to_nothing():
  rows = make_rows('ordinal')
  rows['present'][:] = rows['score'][:] = np.eye(5)[2]
  rows['label_mask'][:] = True
  scores = score(METRICS['classification'], ABOUT['ordinal'], rows, resamples=5)['scores']
  assert scores['quadratic kappa']['value'] is None and scores['accuracy']['value'] == 1
