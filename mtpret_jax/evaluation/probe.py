"""What a trunk has learned, without training it further: k nearest neighbours and a linear model on its features.

Both are fitted on the training split and scored on the validation split, which share no patient by the rule `patient`
(by the others they may). The trunk runs in inference mode, with its running statistics.
"""

import logging

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from mtpret_jax.augment import views
from mtpret_jax.data.records import decode_image
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation.metrics.bootstrap import draw_weights, find_interval
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.ranking import make_ranking
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.models.resnet import ResNet

log = logging.getLogger(__name__)

CHUNK = 64  # images that go through the trunk at a time


def read_sets(config):
  """The images and labels of every configured dataset that has labels: {name: {split: dict of arrays}}."""
  sets = {}
  for name in config.data.datasets:
    splits = {split: open_source(name, config.data.dir, config.data.stored_size, split, config.data.split)
              for split in ('train', 'validation')}
    sets[name] = {split: read_split(source, config) for split, source in splits.items()}
  return sets


def read_split(source, config):
  """Up to `probe.images` records, drawn by the seed: `image` (N, size, size, 1) uint8, `patient` (N,), and `present`,
  `label_mask` (N, T) or `value` (N, 1) where the set has them."""
  rows = np.random.default_rng(config.seed).permutation(len(source))[:config.probe.images]
  records = [source.records[int(row)] for row in np.sort(rows)]
  split = {field: np.stack([record[field] for record in records])
           for field in ('present', 'label_mask', 'value') if records and field in records[0]}
  split['image'] = np.stack([decode_image(record['image'], config.data.size) for record in records])
  split['patient'] = np.array([record['patient'] for record in records])
  split['about'] = source.about
  return split


def make_embedder(config):
  """embed(params, stats, images_BHW1 uint8) -> (B, C) pooled features of the trunk, images shown whole."""
  graph = nnx.split(nnx.eval_shape(lambda: ResNet(config.trunk, rngs=nnx.Rngs(0))))[0]

  @jax.jit
  def embed_chunk(params, stats, images):
    trunk = nnx.merge(graph, params, stats)
    plain = views.make_plain(images, config.augment.size, config.dtype)
    return pool_mean(trunk(plain, groups=None)[-1])

  def embed(params, stats, images):
    padded = np.pad(images, ((0, -len(images) % CHUNK), (0, 0), (0, 0), (0, 0)))
    chunks = [embed_chunk(params, stats, padded[at:at + CHUNK]) for at in range(0, len(padded), CHUNK)]
    return np.concatenate([np.asarray(chunk) for chunk in chunks])[:len(images)]

  return embed


def embed_sets(embed, trunk, sets, title):
  """{name: {split: (N, C) features}} of a trunk given as (params, stats)."""
  return {name: {split: embed(*trunk, part['image']) for split, part in splits.items()}
          for name, splits in tqdm(sets.items(), desc=f'features of the {title} trunk', unit='set', leave=False)}


def score_sets(sets, before, after, config):
  """What two trunks' features, {name: {split: (N, C)}} each, say of the labels: a row for each labelled set.

  A row is a dict of `dataset`, `metric`, `train` and `validation` (images), and for `knn` and `linear` a dict of
  `before`, `after` and `change`, each (score, 95 % interval over patients). The interval of the change draws the same
  patients for both. AUROC is the mean over findings; a value has its mean absolute error.
  """
  rows = []
  for name, splits in tqdm(sets.items(), desc='probing', unit='set', leave=False):
    train, validation = splits['train'], splits['validation']
    if 'present' in train:
      metric, fit, make_measure = 'AUROC', fit_findings, make_findings_measure
    elif 'value' in train:
      metric, fit, make_measure = f'MAE ({train["about"]["value"]["unit"]})', fit_value, make_value_measure
    else:
      continue
    images, nothing = len(validation['image']), np.zeros_like(validation.get('present', validation.get('value')))
    if np.isnan(make_measure(validation, nothing)(np.ones((images, 1)))):
      log.warning('%s: no finding has both classes among the validation images; not scored', name)
      continue
    row = {'dataset': name, 'metric': metric, 'train': len(train['image']), 'validation': images}
    for kind in ('knn', 'linear'):
      old, new = (make_measure(validation, fit(kind, train, features[name]['train'], features[name]['validation'],
                                               config.probe)) for features in (before, after))
      row[kind] = compare(old, new, validation['patient'], config.probe.resamples)
    rows.append(row)
  return rows


def compare(before, after, patients, resamples):
  """{'before' | 'after' | 'change': (score, interval)} of two functions weights_NR -> (R,)."""
  def measure(weights_NR):
    old, new = before(weights_NR), after(weights_NR)
    return {'before': old, 'after': new, 'change': new - old}

  values = measure(np.ones((len(patients), 1)))
  drawn = [measure(weights_NR) for weights_NR in draw_weights(patients, resamples, seed=0)]
  return {title: (float(value[0]), find_interval(np.concatenate([scores[title] for scores in drawn])))
          for title, value in values.items()}


def fit_findings(kind, train, features_NC, features_MC, config):
  """(M, T) scores of each finding, fitted where the finding is known. A finding without both classes scores 0."""
  scores = np.zeros((len(features_MC), train['present'].shape[1]))
  for finding, (present, known) in enumerate(zip(train['present'].T > 0, train['label_mask'].T, strict=True)):
    if 0 < present[known].sum() < known.sum():
      if kind == 'knn':
        model = make_neighbours(known.sum(), config).fit(unit(features_NC[known]), present[known].astype(float))
        scores[:, finding] = model.predict(unit(features_MC))
      else:
        model = make_linear('LogisticRegression', C=config.penalty, max_iter=2000)
        scores[:, finding] = model.fit(features_NC[known], present[known]).decision_function(features_MC)
  return scores


def fit_value(kind, train, features_NC, features_MC, config):
  """(M, 1) predicted values."""
  if kind == 'knn':
    model = make_neighbours(len(features_NC), config).fit(unit(features_NC), train['value'])
    return model.predict(unit(features_MC))
  model = make_linear('Ridge', alpha=1 / config.penalty)
  return model.fit(features_NC, train['value']).predict(features_MC).reshape(-1, 1)


def make_linear(name, **options):
  """Of standardised features. scikit-learn is not imported before it is used: two seconds of each start."""
  from sklearn import linear_model, pipeline, preprocessing
  return pipeline.make_pipeline(preprocessing.StandardScaler(), getattr(linear_model, name)(**options))


def make_neighbours(rows, config):
  from sklearn.neighbors import KNeighborsRegressor
  return KNeighborsRegressor(min(config.neighbours, rows), weights='distance')


def unit(features_NC):
  """Rows of length 1, on which the Euclidean order is that of the cosine."""
  return features_NC / np.maximum(np.linalg.norm(features_NC, axis=1, keepdims=True), 1e-12)


def make_findings_measure(validation, scores_NT):
  """measure(weights_NR) -> (R,), the mean AUROC over the findings of which both classes are drawn; NaN without any."""
  findings = [make_ranking(*columns) for columns in zip(validation['present'].T, scores_NT.T, validation['label_mask'].T,
                                                        strict=True)]
  return lambda weights_NR: average([finding(weights_NR)['AUC'] for finding in findings])


def make_value_measure(validation, values_N1):
  """measure(weights_NR) -> (R,), the mean absolute error."""
  errors_N = np.abs(validation['value'] - values_N1)[:, 0]
  return lambda weights_NR: divide(errors_N @ weights_NR, weights_NR.sum(0))
