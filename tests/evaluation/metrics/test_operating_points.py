"""Thresholds that validation recommends and the scores at them, against scikit-learn; and temperature scaling."""

import numpy as np
import pytest
from sklearn import metrics as sk

from mtpret_jax.evaluation.metrics import NotFinite, operating_points
from mtpret_jax.evaluation.metrics.temperature import apply_temperature, compute_logits, fit_temperature
from tests.support.scored import ABOUT, METRICS, check_score, make_rows

FINDINGS, BOXES = METRICS['classification'], METRICS['detection']


def take_known(rows, finding):
  known = rows['label_mask'][:, finding]
  return rows['present'][known, finding].astype(int), rows['score'][known, finding].astype(float)


@pytest.mark.parametrize('rule', ['youden', '0.9', '0.5'])
@pytest.mark.parametrize('seed', range(5))
def test_a_finding_gets_the_threshold_of_scikit_learns_curve(rule, seed):
  about, rows = ABOUT['independent'], make_rows('independent', seed=seed)
  found = operating_points.choose(FINDINGS, about, rows, rule)
  for finding, name in enumerate(about['findings']):
    present, score = take_known(rows, finding)
    false, true, thresholds = sk.roc_curve(present, score, drop_intermediate=False)
    wanted = np.round(true - false, 9).argmax() if rule == 'youden' else (true >= float(rule)).argmax()
    assert found['thresholds'][name] == thresholds[wanted]
    validation = found['validation'][name]
    assert validation['sensitivity'] == pytest.approx(true[wanted])
    assert validation['specificity'] == pytest.approx(1 - false[wanted]) and validation['n'] == len(present)
  assert found['rule'] == ('youden' if rule == 'youden' else f'sensitivity of at least {rule}')


@pytest.mark.parametrize('name, finding', [('independent', 1), ('two', 1), ('exclusive', 2)])
def test_scores_at_a_threshold_are_scikit_learns(name, finding):
  about, rows, threshold = ABOUT[name], make_rows(name), 0.4
  title = about['findings'][finding]
  scores = operating_points.measure(FINDINGS, about, rows, {title: threshold}, resamples=12, seed=3)[title]
  kept = {column: values[rows['label_mask'].any(1)] for column, values in rows.items()}
  for score, label, measure in (('sensitivity', 1, sk.recall_score), ('specificity', 0, sk.recall_score),
                                ('PPV', 1, sk.precision_score), ('NPV', 0, sk.precision_score)):
    def plain(drawn, label=label, measure=measure):
      present, probability = take_known({column: kept[column][drawn] for column in kept}, finding)
      return measure(present, probability >= threshold, pos_label=label, zero_division=np.nan)
    check_score(scores[score], plain, kept, 12)
  assert scores['threshold'] == threshold and scores['n'] == rows['label_mask'][:, finding].sum()


def test_a_finding_that_validation_lacks_gets_no_threshold():
  about, rows = ABOUT['independent'], make_rows('independent')
  rows['present'][:, 1] = 0
  rows['label_mask'][:, 2] = False
  found = operating_points.choose(FINDINGS, about, rows, 'youden')
  assert list(found['thresholds']) == list(found['validation']) == ['mass']
  assert list(operating_points.choose(FINDINGS, ABOUT['two'], make_rows('two'), 'youden')['thresholds']) == ['ill']


def test_predictions_that_are_not_finite_give_no_threshold():
  rows = make_rows('two')
  rows['score'][3] = np.nan
  with pytest.raises(NotFinite):
    operating_points.choose(FINDINGS, ABOUT['two'], rows, 'youden')


def test_boxes_get_the_threshold_with_the_best_f1():
  about, rows = ABOUT['boxes'], make_rows('boxes')
  found = operating_points.choose(BOXES, about, rows, 'youden')
  assert list(found['thresholds']) == ['active', 'latent'] and found['rule'] == 'best F1 at IoU 0.5'
  prepared = BOXES.prepare(about, rows)['matched']
  for class_id, name in enumerate(found['thresholds']):
    score = np.concatenate([image[class_id][0] for image in prepared])
    hit = np.concatenate([image[class_id][1][0] for image in prepared])
    truths = sum(image[class_id][2] for image in prepared)
    f1 = {threshold: 2 * (hit & (score >= threshold)).sum() / ((score >= threshold).sum() + truths)
          for threshold in score}
    assert f1[found['thresholds'][name]] == max(f1.values())
    scores = operating_points.measure(BOXES, about, rows, found['thresholds'], resamples=3)[name]
    assert scores['F1']['value'] == pytest.approx(max(f1.values())) and scores['n'] == truths
    assert found['validation'][name] == {
      'sensitivity': scores['sensitivity']['value'], 'specificity': None, 'n': truths}
    kept = score >= found['thresholds'][name]
    assert scores['PPV']['value'] == pytest.approx(hit[kept].mean())
    assert scores['sensitivity']['value'] == pytest.approx(hit[kept].sum() / truths)
    assert scores['sensitivity']['interval'] is not None


def test_a_class_without_a_hit_has_no_threshold():
  about, rows = ABOUT['boxes'], make_rows('boxes')
  rows['class_id'] = np.array([np.full_like(image, 1) for image in rows['class_id']], object)
  assert list(operating_points.choose(BOXES, about, rows, 'youden')['thresholds']) == ['latent']


@pytest.mark.parametrize('relation', ['independent', 'exclusive'])
def test_the_temperature_of_overconfident_logits_is_found(relation):
  """Labels are drawn from the probabilities of logits; the model says three times these logits."""
  rng = np.random.default_rng(0)
  about, logits = {'relation': relation}, rng.normal(size=(20_000, 3))
  score = {'independent': 1 / (1 + np.exp(-logits)),
           'exclusive': np.exp(logits) / np.exp(logits).sum(1, keepdims=True)}[relation]
  if relation == 'independent':
    present = rng.random(score.shape) < score
  else:
    present = np.eye(3)[[rng.choice(3, p=row) for row in score]]
  overconfident = apply_temperature(about, score, 1 / 3)
  rows = {'score': overconfident, 'present': present, 'label_mask': np.ones_like(present, bool)}
  temperature = fit_temperature(about, rows)
  assert temperature == pytest.approx(3, rel=0.05)
  # float32 rounds probabilities near 1
  np.testing.assert_allclose(apply_temperature(about, overconfident, 3), score, atol=1e-3)
  rows['label_mask'] = np.zeros_like(rows['label_mask'])
  assert fit_temperature(about, rows) == 1


def test_a_temperature_of_one_changes_no_bit_and_a_certain_prediction_stays_finite():
  about, score = {'relation': 'independent'}, np.float32([[0, 1, 0.3]])
  assert apply_temperature(about, score, 1.0) is score
  assert np.isfinite(compute_logits(about, score)).all()
  cooled = apply_temperature(about, score, 2.0)
  assert cooled.dtype == np.float32 and 0 < cooled[0, 0] < cooled[0, 2] < cooled[0, 1] < 1
