"""What is said of features, against scikit-learn and a loop over resamples."""

import logging

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mtpret_jax.augment.views import make_plain
from mtpret_jax.evaluation import probe, probe_models
from mtpret_jax.evaluation.metrics import bootstrap_interval
from mtpret_jax.models.resnet import ResNet

CONFIG = ConfigDict(dict(probe=dict(neighbours=5, penalty=0.01, resamples=120)))
rng = np.random.default_rng(0)


def make_split(images, patients):
  """Three findings, the third never absent; features of the images, once noise and once with the first two in it."""
  present = np.stack([rng.random(images) > 0.5, rng.random(images) > 0.6, np.ones(images)], 1).astype(np.uint8)
  noise = rng.normal(size=(images, 6))
  return {'image': np.zeros((images, 1)), 'present': present, 'label_mask': rng.random((images, 3)) > 0.2,
          'value': rng.normal(size=(images, 1)), 'patient': rng.integers(patients, size=images).astype(str),
          'about': {'value': {'unit': 'months'}}}, noise, noise + np.pad(present, ((0, 0), (0, 3)))


def standardise(fitted, scored):
  scaler = StandardScaler().fit(fitted)
  return scaler.transform(fitted), scaler.transform(scored)


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
  row, = probe.score_features(sets, {'initial': before, 'pixels': before, 'pretrained': after}, CONFIG)
  assert (row['dataset'], row['metric'], row['train'], row['validation']) == ('chest', 'AUROC', 80, 60)
  for kind in ('knn', 'linear'):
    scale = standardise if kind == 'linear' else lambda *parts: parts
    old, new = (probe_models.predict_findings(kind, train, *scale(one['chest']['train'], one['chest']['validation']),
                                              CONFIG.probe) for one in (before, after))

    def change(rows, old=old, new=new):
      return score_by_scikit_learn(validation, new, rows) - score_by_scikit_learn(validation, old, rows)
    slow = {'initial': lambda rows, old=old: score_by_scikit_learn(validation, old, rows),
            'pretrained': lambda rows, new=new: score_by_scikit_learn(validation, new, rows), 'change': change}
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
  row, = probe.score_features({'hand': chest}, {'initial': hand, 'pretrained': hand}, CONFIG)
  predicted = probe_models.predict_value('linear', train, *standardise(train_features, features), CONFIG.probe)

  def measure(rows):
    return np.abs(validation['value'][rows] - predicted[rows]).mean()
  assert row['metric'] == 'MAE (months)'
  assert row['linear']['pretrained'][0] == pytest.approx(measure(np.arange(30)))
  assert row['linear']['pretrained'][1] == pytest.approx(
    bootstrap_interval(measure, validation['patient'], resamples=120))
  assert row['linear']['change'] == (0, (0, 0))


def test_a_set_whose_findings_have_one_class_is_left_out():
  split, features, _ = make_split(20, 10)
  split['present'][:] = 1
  chest = {'chest': {'train': features, 'validation': features}}
  assert probe.score_features({'chest': {'train': split, 'validation': split}},
                              {'initial': chest, 'pretrained': chest}, CONFIG) == []


@pytest.mark.parametrize('kind', ['knn', 'linear'])
def test_predictions_are_those_of_a_scikit_learn_model_for_each_finding(kind):
  """Also where findings are labelled in different images, and share neighbours if not."""
  train, _, features = make_split(80, 30)
  train['label_mask'][:, 2] = train['label_mask'][:, 0]
  train['present'][:, 2] = rng.random(80) > 0.4
  others = rng.normal(size=(50, 6))
  predicted = probe_models.predict_findings(kind, train, features, others, CONFIG.probe)
  for finding, (present, known) in enumerate(zip(train['present'].T, train['label_mask'].T, strict=True)):
    if kind == 'knn':
      model = make_pipeline(Normalizer(), KNeighborsRegressor(5, weights='distance'))
      expected = model.fit(features[known], present[known].astype(float)).predict(others)
    else:
      model = LogisticRegression(C=0.01)
      expected = model.fit(features[known], present[known]).decision_function(others)
    np.testing.assert_allclose(predicted[:, finding], expected, rtol=1e-6, atol=1e-9)


def test_the_linear_probe_standardises_by_all_training_images():
  """A draw of a few images, in which one channel hardly varies, has the scores of the scaler of all images."""
  train, _, features = make_split(80, 30)
  others = rng.normal(size=(80, 6))
  few = {'present': train['present'][:8], 'label_mask': np.ones_like(train['label_mask'][:8])}
  parts = {'train': features[:8], 'validation': others, 'all': features}
  scaler = StandardScaler().fit(features)
  scaled = probe_models.predict_findings('linear', few, *map(scaler.transform, (features[:8], others)), CONFIG.probe)
  weights = np.ones((80, 1))
  score = probe.fit_and_score('linear', 'present', few, train, parts, CONFIG.probe)
  assert score(weights) == probe.make_auroc(train, scaled)(weights)


def test_one_image_with_a_channel_that_is_dead_in_training_is_not_predicted_far_off():
  fitted, scored = rng.normal(size=(200, 6)), rng.normal(size=(50, 6))
  value = fitted[:, :1] * 10
  fitted[:, 5] = 1e-4 * (np.arange(200) == 0)  # almost dead in training
  scored[:, 5] = 0.1 * (np.arange(50) == 0)
  predicted = probe_models.predict_value('linear', {'value': value}, *probe_models.standardise(fitted, fitted, scored),
                                         CONFIG.probe)
  assert np.abs(predicted[0] - scored[0, 0] * 10) < 20
  assert np.allclose(probe_models.standardise(fitted, scored[1:])[0], standardise(fitted, scored[1:])[1])


def test_features_of_all_splits_are_embedded_together_and_returned_apart():
  """`embed` here is the mean of each image, so that rows can be told apart."""
  datasets = {name: {split: {'image': np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]}
                     for split, first, count in (('train', at, 5), ('validation', at + 5, 3))}
              for name, at in (('chest', 0), ('hand', 100))}
  calls = []

  def embed(params, stats, images, title=''):
    calls.append(len(images))
    return np.stack([image.mean(keepdims=True).ravel() for image in images])
  features = probe.embed_datasets(embed, ({}, {}), datasets)
  assert calls == [16]
  for name, splits in datasets.items():
    for split, part in splits.items():
      np.testing.assert_array_equal(features[name][split][:, 0], part['image'].ravel())


def test_baselines_are_the_small_image_and_its_greys():
  block = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  images = np.concatenate([block.repeat(4, 1).repeat(4, 2), np.full((1, 64, 64, 1), 200, np.uint8)])
  np.testing.assert_array_equal(probe.shrink_images(images)[0], np.arange(256, dtype=np.float32) / 255)
  greys = probe.count_greys(images)
  np.testing.assert_array_equal(greys[0], np.full(32, 1 / 32))
  assert greys[1].argmax() == 200 // 8 and greys[1].max() == 1


def test_a_calibrated_trunk_has_the_same_weights_and_the_statistics_of_training_images(one_block):
  config = ConfigDict(dict(trunk='one_block', seed=0, dtype='float32', augment=dict(size=32)))
  images = rng.integers(256, size=(probe.CHUNK, 32, 32, 1)).astype(np.uint8)
  datasets = {name: {'train': {'image': part}} for name, part in (('chest', images[:20]), ('hand', images[20:]))}
  model = ResNet('one_block', rngs=nnx.Rngs(0))
  params, stats = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
  same, calibrated = probe.calibrate(config, (params, stats), datasets)
  assert same is params and jax.tree.map(np.shape, calibrated) == jax.tree.map(np.shape, stats)
  first = np.asarray(jax.jit(lambda images: model.conv1(make_plain(images, 32, 'float32'), stride=2))(images))
  np.testing.assert_allclose(calibrated['norm1']['mean'], first.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(calibrated['norm1']['var'], first.reshape(-1, 64).var(0, ddof=1), rtol=1e-4)


def test_a_set_used_whole_or_without_a_validation_split_is_left_out_with_a_line(prepared, caplog):
  config = ConfigDict(dict(seed=0, data=dict(
    datasets=('kermany_pneumonia', 'mura', 'panoramic_dental'), whole=('mura',), dir=str(prepared), stored_size='256',
    split='official', size=16)))
  with caplog.at_level(logging.INFO):
    datasets = probe.read_datasets(config, images=4)
  assert list(datasets) == ['kermany_pneumonia'] and len(datasets['kermany_pneumonia']['validation']['image']) > 0
  lines = [record.message for record in caplog.records if record.name == probe.log.name]
  assert lines[0] == 'mura is not probed: all its images are training images (data.whole)'
  assert lines[1].startswith('panoramic_dental is not probed: panoramic_dental has no train images')
