"""Probes of a frozen trunk: k nearest neighbours (kNN) and a linear model on its features.

Both are fitted on the training split and scored on the validation split. The splits share no patient if `data.split`
is 'patient'; with the other rules they may. The trunk runs in inference mode, with its running statistics.

Letters: N training images, M validation images, C feature channels, T findings, R resamples of the bootstrap.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from mtpret_jax.augment import views
from mtpret_jax.data.records import decode_image
from mtpret_jax.data.sources import Source, open_source
from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore, draw_weights, find_interval
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.ranking import make_ranking_scores
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.models.resnet import ResNet

PROBES = ('knn', 'linear')
CHUNK = 64  # images that go through the trunk at a time

Split = dict[str, Any]  # see `read_split`
Datasets = dict[str, dict[str, Split]]  # {dataset: {'train' | 'validation': ...}}
Features = dict[str, dict[str, np.ndarray]]  # {dataset: {'train' | 'validation': (images, C)}}


def read_datasets(config: ConfigDict) -> Datasets:
  """Images and labels of the training and the validation split of every configured dataset."""
  return {name: {split: read_split(open_source(name, config.data.dir, config.data.stored_size, split,
                                               config.data.split), config)
                 for split in ('train', 'validation')} for name in config.data.datasets}


def read_split(source: Source, config: ConfigDict) -> Split:
  """Up to `probe.images` records, drawn by the seed.

  Returns:
    `image` (N, size, size, 1) uint8; `patient` (N,); `about`, the metadata of the dataset; `present` and `label_mask`
    (N, T) if it has findings; `value` (N, 1) if it has a value.
  """
  rows = np.random.default_rng(config.seed).permutation(len(source))[:config.probe.images]
  records = [source.records[int(row)] for row in np.sort(rows)]
  split: Split = {field: np.stack([record[field] for record in records])
                  for field in ('present', 'label_mask', 'value') if records and field in records[0]}
  split['image'] = np.stack([decode_image(record['image'], config.data.size) for record in records])
  split['patient'] = np.array([record['patient'] for record in records])
  return split | {'about': source.about}


def make_embedder(config: ConfigDict) -> Callable[[Mapping, Mapping, np.ndarray], np.ndarray]:
  """embed(params, stats, images) -> (N, C): the trunk's pooled features of whole images, (N, H, W, 1) uint8."""
  graph = nnx.split(nnx.eval_shape(lambda: ResNet(config.trunk, rngs=nnx.Rngs(0))))[0]

  @jax.jit
  def embed_chunk(params: Mapping, stats: Mapping, images: jax.Array) -> jax.Array:
    trunk = nnx.merge(graph, params, stats)
    plain = views.make_plain(images, config.augment.size, config.dtype)
    return pool_mean(trunk(plain, groups=None)[-1])

  def embed(params: Mapping, stats: Mapping, images: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, -len(images) % CHUNK), (0, 0), (0, 0), (0, 0)))  # one shape, so one compilation
    chunks = [embed_chunk(params, stats, padded[at:at + CHUNK]) for at in range(0, len(padded), CHUNK)]
    return np.concatenate([np.asarray(chunk) for chunk in chunks])[:len(images)]

  return embed


def embed_datasets(embed: Callable[[Mapping, Mapping, np.ndarray], np.ndarray], trunk: tuple[Mapping, Mapping],
                   datasets: Datasets, title: str) -> Features:
  """The features of all images by a trunk, given as (params, stats). `title` names the trunk in the progress bar."""
  return {name: {split: embed(*trunk, part['image']) for split, part in splits.items()}
          for name, splits in tqdm(datasets.items(), desc=f'features of the {title} trunk', unit='dataset',
                                   leave=False)}


def score_features(datasets: Datasets, before: Features, after: Features, config: ConfigDict) -> list[dict[str, Any]]:
  """Probes the features of a trunk before and after training.

  Returns:
    A row for each dataset with labels: `dataset`; `metric`, 'AUROC' (mean over findings; test scores call it 'AUC') or
    'MAE (unit)'; `train` and `validation`, numbers of images; and for 'knn' and 'linear' a dict of `before`, `after`
    and `change`, each (score, 95 % interval over patients). The interval of the change draws the same patients before
    and after.
  """
  rows = []
  for name, splits in tqdm(datasets.items(), desc='probing', unit='dataset', leave=False):
    train, validation = splits['train'], splits['validation']
    if 'present' in train:
      metric, label = 'AUROC', 'present'
    elif 'value' in train:
      metric, label = f'MAE ({train["about"]["value"]["unit"]})', 'value'
    else:
      continue
    predict, make_score = PREDICT_AND_SCORE[label]
    images = len(validation['image'])
    if np.isnan(make_score(validation, np.zeros_like(validation[label]))(np.ones((images, 1)))):
      continue  # no finding is both present and absent among the validation images, which the report says
    row = {'dataset': name, 'metric': metric, 'train': len(train['image']), 'validation': images}
    for probe in PROBES:
      old, new = (make_score(validation, predict(probe, train, features[name]['train'], features[name]['validation'],
                                                 config.probe)) for features in (before, after))
      row[probe] = compare(old, new, validation['patient'], config.probe.resamples)
    rows.append(row)
  return rows


def compare(before: WeightedScore, after: WeightedScore, patients: np.ndarray,
            resamples: int) -> dict[str, tuple[float, tuple[float, float] | None]]:
  """{'before' | 'after' | 'change': (score, 95 % interval)}."""
  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    old, new = before(weights_NR), after(weights_NR)
    return {'before': old, 'after': new, 'change': new - old}

  values = compute(np.ones((len(patients), 1)))
  drawn = [compute(weights_NR) for weights_NR in draw_weights(patients, resamples, seed=0)]
  return {title: (float(value[0]), find_interval(np.concatenate([scores[title] for scores in drawn])))
          for title, value in values.items()}


def predict_findings(probe: str, train: Split, features_NC: np.ndarray, features_MC: np.ndarray,
                     config: ConfigDict) -> np.ndarray:
  """(M, T) scores of each finding, higher where it is likelier. A finding is fitted on the training images that have a
  label for it; one that is never present, or never absent, among them scores 0."""
  scores_MT = np.zeros((len(features_MC), train['present'].shape[1]))
  for finding, (present_N, labelled_N) in enumerate(zip(train['present'].T > 0, train['label_mask'].T, strict=True)):
    if 0 < present_N[labelled_N].sum() < labelled_N.sum():
      if probe == 'knn':
        model = make_knn(labelled_N.sum(), config)
        model.fit(normalise_rows(features_NC[labelled_N]), present_N[labelled_N].astype(float))
        scores_MT[:, finding] = model.predict(normalise_rows(features_MC))
      else:
        model = make_linear_model('LogisticRegression', C=config.penalty, max_iter=2000)
        model.fit(features_NC[labelled_N], present_N[labelled_N])
        scores_MT[:, finding] = model.decision_function(features_MC)
  return scores_MT


def predict_value(probe: str, train: Split, features_NC: np.ndarray, features_MC: np.ndarray,
                  config: ConfigDict) -> np.ndarray:
  """(M, 1) predicted values, in the unit of the value."""
  if probe == 'knn':
    model = make_knn(len(features_NC), config).fit(normalise_rows(features_NC), train['value'])
    return model.predict(normalise_rows(features_MC))
  model = make_linear_model('Ridge', alpha=1 / config.penalty)
  return model.fit(features_NC, train['value']).predict(features_MC).reshape(-1, 1)


def make_linear_model(name: str, **options: float) -> Any:
  """A scikit-learn linear model of standardised features."""
  # imported here, because it would add two seconds to every start
  from sklearn import linear_model, pipeline, preprocessing
  return pipeline.make_pipeline(preprocessing.StandardScaler(), getattr(linear_model, name)(**options))


def make_knn(images: int, config: ConfigDict) -> Any:
  """k nearest neighbours, weighted by inverse distance; k is at most the number of images."""
  from sklearn.neighbors import KNeighborsRegressor
  return KNeighborsRegressor(min(config.neighbours, images), weights='distance')


def normalise_rows(features_NC: np.ndarray) -> np.ndarray:
  """Rows of length 1, so that nearest by Euclidean distance is nearest by cosine."""
  return features_NC / np.maximum(np.linalg.norm(features_NC, axis=1, keepdims=True), 1e-12)


def make_auroc(validation: Split, scores_MT: np.ndarray) -> WeightedScore:
  """The mean AUROC over the findings that are present in some drawn images and absent in others; NaN if there is no
  such finding."""
  rankings = [make_ranking_scores(*columns) for columns in zip(
    validation['present'].T, scores_MT.T, validation['label_mask'].T, strict=True)]
  return lambda weights_MR: average([ranking(weights_MR)['AUC'] for ranking in rankings])


def make_mae(validation: Split, values_M1: np.ndarray) -> WeightedScore:
  """The mean absolute error."""
  errors_M = np.abs(validation['value'] - values_M1)[:, 0]
  return lambda weights_MR: divide(errors_M @ weights_MR, weights_MR.sum(0))


# by the label that a dataset has
PREDICT_AND_SCORE: dict[str, tuple[Callable, Callable]] = {
  'present': (predict_findings, make_auroc), 'value': (predict_value, make_mae)}
