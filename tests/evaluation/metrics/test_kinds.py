"""Scores of values and masks against scikit-learn; what all tasks share."""

import numpy as np
import pytest
from sklearn import metrics as sk

from mtpret_jax.evaluation.metrics import read_predictions, score, write_predictions
from tests.support.scored import ABOUT, METRICS, TASKS, check_score, make_rows


def test_values_score_as_scikit_learn_says():
  rows = make_rows('value')
  truth, guess = (rows[name][:, 0].astype(float) for name in ('value', 'predicted'))
  result = score(METRICS['regression'], ABOUT['value'], rows, resamples=25, seed=3)
  slow = {'MAE (months)': sk.mean_absolute_error, 'RMSE (months)': sk.root_mean_squared_error, 'R2': sk.r2_score,
          'Pearson r': lambda truth, guess: np.corrcoef(truth, guess)[0, 1]}
  assert result['headline'] == 'MAE (months)' and set(result['scores']) == set(slow)
  for name, measure in slow.items():
    check_score(result['scores'][name], lambda drawn, call=measure: call(truth[drawn], guess[drawn]), rows, 25)


def test_a_value_without_a_unit_has_none_in_its_names():
  about = ABOUT['value'] | {'value': {'name': 'value', 'unit': ''}}
  result = score(METRICS['regression'], about, make_rows('value'), resamples=2)
  assert result['headline'] == 'MAE' and set(result['scores']) == {'MAE', 'RMSE', 'R2', 'Pearson r'}


def test_one_true_value_leaves_correlation_undefined():
  rows = make_rows('value')
  rows['value'][:] = 100.1
  scores = score(METRICS['regression'], ABOUT['value'], rows, resamples=5)['scores']
  assert scores['R2'] == scores['Pearson r'] == {'value': None, 'interval': None}
  assert scores['MAE (months)']['value'] == pytest.approx(np.abs(rows['predicted'] - rows['value']).mean())


def spread_pixels(confusions):
  """(truth, prediction) of every pixel that a sum of confusion matrices stands for."""
  truth, guess = np.indices((3, 3)).reshape(2, 9)
  counts = confusions.reshape(-1, 9).sum(0)
  return np.repeat(truth, counts), np.repeat(guess, counts)


@pytest.mark.parametrize('name, slow', [('Dice', sk.f1_score), ('IoU', sk.jaccard_score)])
def test_masks_score_as_scikit_learn_says(name, slow):
  rows = make_rows('mask', images=40)
  kept = {column: np.delete(values, np.arange(0, 40, 5), axis=0) for column, values in rows.items()}
  result = score(METRICS['segmentation'], ABOUT['mask'], rows, resamples=8, seed=3)
  assert result['left_out'] == 8 and result['images'] == 32
  image_NT = np.full((32, 3), np.nan)
  for row in range(32):
    pixels = spread_pixels(kept['confusion'][row])
    there = np.unique(pixels)
    image_NT[row, there] = slow(*pixels, average=None, labels=there)
  assert np.isnan(image_NT[:, 2]).any()
  def over_pixels(drawn):
    return slow(*spread_pixels(kept['confusion'][drawn]), average=None, labels=range(3))
  for kind, title in enumerate(ABOUT['mask']['mask']):
    check_score(result['scores'][f'{name} over pixels: {title}'], lambda drawn, t=kind: over_pixels(drawn)[t], kept, 8)
    check_score(result['scores'][f'{name} over images: {title}'],
                lambda drawn, t=kind: np.nanmean(image_NT[drawn, t]), kept, 8)
  # Dice of the foreground, IoU with the background
  mean, classes = ('Dice', slice(1, None)) if name == 'Dice' else ('mean IoU', slice(None))
  check_score(result['scores'][f'{mean} over pixels'], lambda drawn: over_pixels(drawn)[classes].mean(), kept, 8)
  check_score(result['scores'][f'{mean} over images'],
              lambda drawn: np.nanmean(image_NT[drawn, classes], axis=0).mean(), kept, 8)


@pytest.mark.parametrize('name', ABOUT)
def test_a_subgroup_scores_as_if_it_were_alone(name):
  task, about, rows = TASKS[name], ABOUT[name], make_rows(name, images=140)
  result = score(METRICS[task], about, rows, resamples=20, seed=3)
  assert {'F', 'M'} <= {row['group'] for row in result['groups']}
  for row in result['groups']:
    if row['by'] == 'sex':
      chosen = rows['sex'] == row['group']
      members = {column: values[chosen] for column, values in rows.items()}
      alone = score(METRICS[task], about, members, resamples=20, seed=3)
      assert alone['scores'][result['headline']] == {'value': row['value'], 'interval': row['interval']}
      assert alone['images'] == row['images'] and alone['patients'] == row['patients']


def test_small_and_unknown_subgroups_are_not_listed():
  rows = make_rows('value', images=100)
  rows['sex'] = np.repeat(['F', 'M', ''], [40, 40, 20])
  rows['view'] = np.repeat(['PA', 'AP'], [81, 19])
  rows['age'] = np.repeat([17.9, 18, np.nan, 90], [25, 25, 25, 25])
  groups = score(METRICS['regression'], ABOUT['value'], rows, resamples=2)['groups']
  assert [(row['by'], row['group'], row['images']) for row in groups] == [
    ('sex', 'F', 40), ('sex', 'M', 40), ('age', '0 to 17', 25), ('age', '18 to 39', 25), ('age', '65 and over', 25)]


@pytest.mark.parametrize('name', ABOUT)
def test_scores_can_be_computed_again_from_the_table_of_predictions(name, tmp_path):
  task, about, rows = TASKS[name], ABOUT[name], make_rows(name)
  write_predictions(tmp_path / 'predictions.csv', METRICS[task], about, rows)
  again = read_predictions(tmp_path / 'predictions.csv', METRICS[task], about)
  assert score(METRICS[task], about, again, resamples=10) == score(METRICS[task], about, rows, resamples=10)
  np.testing.assert_array_equal(again['image_id'], rows['image_id'])


def test_the_table_of_another_dataset_is_refused(tmp_path):
  write_predictions(tmp_path / 'p.csv', METRICS['classification'], ABOUT['two'], make_rows('two'))
  with pytest.raises(ValueError, match='written for another task or dataset'):
    read_predictions(tmp_path / 'p.csv', METRICS['classification'], ABOUT['exclusive'])


@pytest.mark.parametrize('name', ABOUT)
def test_the_seed_decides_the_interval_and_the_value_does_not_care(name):
  first, second = (score(METRICS[TASKS[name]], ABOUT[name], make_rows(name), resamples=20, seed=seed)
                   for seed in (0, 1))
  head = first['headline']
  assert first['scores'][head]['value'] == second['scores'][head]['value']
  assert first['scores'][head]['interval'] != second['scores'][head]['interval']
  low, high = first['scores'][head]['interval']
  assert low < first['scores'][head]['value'] < high


def test_one_patient_gives_no_interval():
  rows = make_rows('value')
  rows['patient'][:] = 'p'
  assert score(METRICS['regression'], ABOUT['value'], rows, resamples=5)['scores']['R2']['interval'] is None


def test_nothing_annotated_is_undefined_not_an_error():
  rows = make_rows('mask')
  rows['confusion'][:] = 0
  result = score(METRICS['segmentation'], ABOUT['mask'], rows, resamples=5)
  assert result['scores'] == {'Dice over images': {'value': None, 'interval': None}}
  assert result['images'] == 0 and result['left_out'] == 90


def test_wrong_rows_are_named():
  rows = make_rows('value')
  with pytest.raises(ValueError, match="rows for segmentation lack 'confusion': they have image_id"):
    score(METRICS['segmentation'], ABOUT['mask'], rows, resamples=2)
  with pytest.raises(ValueError, match="'predicted': 89"):
    score(METRICS['regression'], ABOUT['value'], rows | {'predicted': rows['predicted'][1:]}, resamples=2)
  with pytest.raises(ValueError, match='occurs 2 times: there must be one row per image, without padding'):
    score(METRICS['regression'], ABOUT['value'],
          {name: np.append(values, values[-1:], 0) for name, values in rows.items()}, resamples=2)


@pytest.mark.parametrize('name, column', [('independent', 'score'), ('value', 'predicted'), ('boxes', 'boxes')])
def test_a_prediction_that_is_no_number_is_refused(name, column):
  rows = make_rows(name)
  rows[column][7][...] = np.nan
  with pytest.raises(ValueError, match=f"'{column}' is not finite for 1 of 90 images"):
    score(METRICS[TASKS[name]], ABOUT[name], rows, resamples=2)
