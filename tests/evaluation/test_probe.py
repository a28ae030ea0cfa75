"""What is said of features, against scikit-learn and a loop over resamples."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from mtpret_jax.evaluation import probe
from mtpret_jax.evaluation.metrics import bootstrap_interval

CONFIG = ConfigDict(dict(probe=dict(neighbours=5, penalty=0.01, resamples=120)))
rng = np.random.default_rng(0)


def make_split(images, patients):
  """Three findings, the third never absent; features of the images, once noise and once with the first two in it."""
  present = np.stack([rng.random(images) > 0.5, rng.random(images) > 0.6, np.ones(images)], 1).astype(np.uint8)
  noise = rng.normal(size=(images, 6))
  return {'image': np.zeros((images, 1)), 'present': present, 'label_mask': rng.random((images, 3)) > 0.2,
          'value': rng.normal(size=(images, 1)), 'patient': rng.integers(patients, size=images).astype(str),
          'about': {'value': {'unit': 'months'}}}, noise, noise + np.pad(present, ((0, 0), (0, 3)))


def score_by_scikit_learn(split, scores, rows):
  """The mean over findings; None where all have one class only."""
  areas = []
  for present, known, score in zip(split['present'][rows].T, split['label_mask'][rows].T, scores[rows].T, strict=True):
    if 0 < present[known].sum() < known.sum():
      areas.append(roc_auc_score(present[known], score[known]))
  return np.mean(areas) if areas else None


def test_scores_and_intervals_are_those_of_scikit_learn_and_a_loop():
  (train, *train_features), (validation, *features) = make_split(80, 30), make_split(60, 20)
  sets = {'chest': {'train': train, 'validation': validation}}
  before, after = ({'chest': {'train': fitted, 'validation': scored}}
                   for fitted, scored in zip(train_features, features, strict=True))
  row, = probe.score_features(sets, before, after, CONFIG)
  assert (row['dataset'], row['metric'], row['train'], row['validation']) == ('chest', 'AUROC', 80, 60)
  for kind in ('knn', 'linear'):
    old, new = (probe.predict_findings(kind, train, one['chest']['train'], one['chest']['validation'], CONFIG.probe)
                for one in (before, after))

    def change(rows, old=old, new=new):
      return score_by_scikit_learn(validation, new, rows) - score_by_scikit_learn(validation, old, rows)
    slow = {'before': lambda rows, old=old: score_by_scikit_learn(validation, old, rows),
            'after': lambda rows, new=new: score_by_scikit_learn(validation, new, rows), 'change': change}
    for title, call in slow.items():
      score, interval = row[kind][title]
      assert score == pytest.approx(call(np.arange(60)))
      assert interval == pytest.approx(bootstrap_interval(call, validation['patient'], resamples=120))


def test_a_value_has_its_mean_absolute_error():
  (train, train_features, _), (validation, features, _) = make_split(40, 20), make_split(30, 12)
  for split in (train, validation):
    del split['present']
  chest = {'train': train, 'validation': validation}
  hand = {'hand': {'train': train_features, 'validation': features}}
  row, = probe.score_features({'hand': chest}, hand, hand, CONFIG)
  predicted = probe.predict_value('linear', train, train_features, features, CONFIG.probe)

  def measure(rows):
    return np.abs(validation['value'][rows] - predicted[rows]).mean()
  assert row['metric'] == 'MAE (months)'
  assert row['linear']['after'][0] == pytest.approx(measure(np.arange(30)))
  assert row['linear']['after'][1] == pytest.approx(bootstrap_interval(measure, validation['patient'], resamples=120))
  assert row['linear']['change'] == (0, (0, 0))


def test_a_set_whose_findings_have_one_class_is_left_out():
  split, features, _ = make_split(20, 10)
  split['present'][:] = 1
  chest = {'chest': {'train': features, 'validation': features}}
  assert probe.score_features({'chest': {'train': split, 'validation': split}}, chest, chest, CONFIG) == []
