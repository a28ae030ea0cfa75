"""Shares of the labels: which images are drawn, and the mean score of the draws against scikit-learn and a loop."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from mtpret_jax.evaluation import label_shares
from mtpret_jax.evaluation.metrics import bootstrap_interval

CONFIG = ConfigDict(dict(seed=3, probe=dict(
  penalty=0.01, resamples=60, fractions=(1.0, 0.1), draws=2, per_class=5)))


def make_split(images, rng):
  """Two findings, one of them in a twelfth of the images, labelled in nine of ten; features that have a bit of both."""
  present = np.stack([np.arange(images) % 12 == 0, rng.random(images) > 0.5], 1).astype(np.uint8)
  mask = np.repeat(np.arange(images)[:, None] % 10 > 0, 2, axis=1)
  split = {'image': np.zeros((images, 1)), 'present': present, 'label_mask': mask, 'about': {},
           'patient': rng.integers(images // 3, size=images).astype(str)}
  return split, rng.normal(size=(images, 4)) + np.pad(present, ((0, 0), (0, 2)))


def test_a_share_has_some_images_of_each_class_and_is_part_of_a_larger_share():
  split, _ = make_split(600, np.random.default_rng(0))
  subsets = [label_shares.draw_subset(split, fraction, 5, np.random.default_rng(7)) for fraction in (0.01, 0.1, 1.0)]
  assert [len(rows) for rows in subsets[1:]] == [54, 540], 'of the 540 images with a label'
  assert 10 <= len(subsets[0]) <= 20, 'more than 1 %, because each class has five images'
  assert set(subsets[0]) < set(subsets[1]) < set(subsets[2])
  for rows in subsets:
    assert split['label_mask'][rows].all()
    present = split['present'][rows].sum(0)
    assert (present >= 5).all() and (len(rows) - present >= 5).all()


def test_classes_with_few_images_are_in_every_share_whole():
  split, _ = make_split(600, np.random.default_rng(0))
  split['present'][:, 0] = 0
  split['present'][[1, 2, 3], 0] = 1
  assert {1, 2, 3} <= set(label_shares.draw_subset(split, 0.01, 5, np.random.default_rng(0)))


def test_a_value_has_no_classes():
  split = {'image': np.zeros((300, 1)), 'value': np.zeros((300, 1))}
  assert [len(label_shares.draw_subset(split, fraction, 5, np.random.default_rng(0)))
          for fraction in (0.001, 0.1, 1.0)] == [5, 30, 300]


def test_shares_with_the_same_images_are_one():
  train, _ = make_split(60, np.random.default_rng(0))
  config = ConfigDict(dict(seed=3, probe=dict(fractions=(1.0, 0.001, 0.01, 0.4, 0.9999), draws=2, per_class=4)))
  draws = label_shares.list_draws(train, config)
  assert list(draws) == [0.01, 0.4, 1.0]
  assert [len(rows) for rows in draws[1.0]] == [54]


def test_scores_are_means_over_the_same_draws_with_the_interval_of_a_loop():
  rng = np.random.default_rng(1)
  (train, fitted), (validation, scored) = make_split(200, rng), make_split(60, rng)
  noise = {'chest': {'train': fitted[:, 2:], 'validation': scored[:, 2:]}}
  features = {'initial': noise, 'pretrained': {'chest': {'train': fitted, 'validation': scored}}}
  row, = label_shares.score_shares({'chest': {'train': train, 'validation': validation}}, features, CONFIG)
  assert (row['dataset'], row['metric'], row['labelled']) == ('chest', 'AUROC', 180)
  assert [share['fraction'] for share in row['shares']] == [0.1, 1.0] and row['shares'][1]['images'] == 180
  draws = label_shares.draw_subsets(train, 0.1, CONFIG)
  assert len(draws) == 2 and set(draws[0]) != set(draws[1])
  assert len(label_shares.draw_subsets(train, 1.0, CONFIG)) == 1

  def predict(title, rows, finding):
    every, others = features[title]['chest']['train'], features[title]['chest']['validation']
    scaler = StandardScaler().fit(every)  # also by images that are not drawn
    model = LogisticRegression(C=0.01, tol=1e-8).fit(scaler.transform(every[rows]), train['present'][rows, finding])
    return model.decision_function(scaler.transform(others))
  predictions = {title: [[predict(title, rows, finding) for finding in (0, 1)] for rows in draws] for title in features}

  def measure(title, rows):
    areas = []
    for draw in predictions[title]:
      known = rows[validation['label_mask'][rows, 0]]
      truth = validation['present'][known]
      areas.append(np.mean([roc_auc_score(truth[:, finding], draw[finding][known]) for finding in (0, 1)
                            if 0 < truth[:, finding].sum() < len(known)]))
    return np.mean(areas)

  def change(rows):
    return measure('pretrained', rows) - measure('initial', rows)
  share = row['shares'][0]
  for title, call in (('initial', lambda rows: measure('initial', rows)), ('change', change)):
    assert share[title][0] == pytest.approx(call(np.arange(60)))
    assert share[title][1] == pytest.approx(bootstrap_interval(call, validation['patient'], resamples=60))
