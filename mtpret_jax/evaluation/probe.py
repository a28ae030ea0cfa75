"""Probes of a frozen trunk: k nearest neighbours (kNN) and a linear model on its features.

Both are fitted on the training split and scored on the validation split. The splits share no patient if `data.split`
is 'patient'; with the other rules they may. The trunk runs in inference mode, with its running statistics.

A score means little alone: many findings can be predicted from an image's greys, or from an untrained trunk. So the
same probes run on baselines too: small images, grey histograms, and the initial weights with calibrated statistics.

Letters: N training images, M validation images, C feature channels, T findings, R resamples of the bootstrap.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from mtpret_jax.augment import views
from mtpret_jax.data.records import decode_image
from mtpret_jax.data.sources import MissingSplit, Source, open_source
from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore, draw_weights, find_interval
from mtpret_jax.evaluation.metrics.nan_arithmetic import average, divide
from mtpret_jax.evaluation.metrics.ranking import make_ranking_scores
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.models.resnet import ResNet
from mtpret_jax.objectives import Trunk
from mtpret_jax.objectives.modules import take_stats

PROBES = ('knn', 'linear')
CHUNK = 64  # images that go through the trunk at a time
PIXELS = 16  # side of the small images, px
BINS = 32  # of the grey histogram
CALIBRATION = 2048  # at most this many images set the running statistics of `calibrate`

log = logging.getLogger(__name__)

Split = dict[str, Any]  # see `read_split`
Datasets = dict[str, dict[str, Split]]  # {dataset: {'train' | 'validation': ...}}
Features = dict[str, dict[str, np.ndarray]]  # {dataset: {'train' | 'validation': (images, C)}}


def read_datasets(config: ConfigDict) -> Datasets:
  """Images and labels of the training and the validation split of every configured dataset.

  A dataset without a validation split is left out, and so is one in `data.whole`: its validation images were training
  images.
  """
  datasets: Datasets = {}
  for name in config.data.datasets:
    if name in config.data.whole:
      log.info('%s is not probed: all its images are training images (data.whole)', name)
      continue
    try:
      datasets[name] = {split: read_split(open_source(name, config.data.dir, config.data.stored_size, split,
                                                      config.data.split), config)
                        for split in ('train', 'validation')}
    except MissingSplit as error:
      log.info('%s is not probed: %s', name, error)
  return datasets


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


def describe_datasets(describe: Callable[[np.ndarray], np.ndarray], datasets: Datasets) -> Features:
  """Features that need no trunk: `describe` is `shrink_images` or `count_greys`."""
  return {name: {split: describe(part['image']) for split, part in splits.items()}
          for name, splits in datasets.items()}


def shrink_images(images: np.ndarray) -> np.ndarray:
  """The images at 16 x 16 px, as features: (N, H, W, 1) uint8 -> (N, 256) f32 in 0-1."""
  small = [cv2.resize(image[..., 0], (PIXELS, PIXELS), interpolation=cv2.INTER_AREA) for image in images]
  return np.stack(small).reshape(len(images), -1).astype(np.float32) / 255


def count_greys(images: np.ndarray) -> np.ndarray:
  """The share of pixels in each of 32 equal ranges of grey values: (N, H, W, 1) uint8 -> (N, 32) f32."""
  bins = [np.bincount(image.ravel() // (256 // BINS), minlength=BINS) for image in images]
  return np.stack(bins).astype(np.float32) / images[0].size


def calibrate(config: ConfigDict, trunk: Trunk, datasets: Datasets) -> Trunk:
  """The same weights, with the running statistics of training images of all datasets, mixed; (params, stats).

  A new trunk has running means of 0 and variances of 1, which are not those of its activations. A trained trunk differs
  from it in weights and in statistics; from the calibrated one it differs in weights only.
  """
  params, stats = trunk
  graph = nnx.split(nnx.eval_shape(lambda: ResNet(config.trunk, rngs=nnx.Rngs(0))))[0]

  @jax.jit
  def measure(params: Mapping, stats: Mapping, images: jax.Array) -> dict[str, Any]:
    model = nnx.merge(graph, params, stats)
    for _, module in nnx.iter_modules(model):
      if isinstance(module, BatchNorm):
        module.momentum = 1.0  # the running statistics then become exactly those of this batch
    model(views.make_plain(images, config.augment.size, config.dtype), groups=1)
    return take_stats(model)

  measured = [measure(params, stats, images) for images in draw_training_images(datasets, config.seed)]
  return params, jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *jax.device_get(measured))


def draw_training_images(datasets: Datasets, seed: int) -> Iterator[np.ndarray]:
  """Chunks of training images, mixed over the datasets. Some images come twice if the last chunk would be smaller."""
  pool = [image for splits in datasets.values() for image in splits['train']['image']]
  order = np.random.default_rng(seed).permutation(len(pool))
  chunks = -(-min(len(pool), CALIBRATION) // CHUNK)
  for rows in np.resize(order, (chunks, CHUNK)):
    yield np.stack([pool[row] for row in rows])


def score_features(datasets: Datasets, features: Mapping[str, Features], config: ConfigDict) -> list[dict[str, Any]]:
  """Probes features of the same images, and compares those of the pretrained trunk with those of the initial one.

  Args:
    features: {title: features}, with the titles 'initial' and 'pretrained' and any others.

  Returns:
    A row for each dataset with labels: `dataset`; `metric`, 'AUROC' (mean over findings; test scores call it 'AUC') or
    'MAE (unit)'; `train` and `validation`, numbers of images; and for 'knn' and 'linear' a dict of every title and of
    `change`, pretrained minus initial, each (score, 95 % interval over patients). The interval of the change draws the
    same patients for both.
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
      scores = {title: make_score(validation, predict(probe, train, all_features[name]['train'],
                                                      all_features[name]['validation'], config.probe))
                for title, all_features in features.items()}
      row[probe] = compare(scores, validation['patient'], config.probe.resamples)
    rows.append(row)
  return rows


def compare(scores: Mapping[str, WeightedScore], patients: np.ndarray,
            resamples: int) -> dict[str, tuple[float, tuple[float, float] | None]]:
  """{title or 'change': (score, 95 % interval)}; `scores` has 'initial' and 'pretrained'."""
  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    values = {title: score(weights_NR) for title, score in scores.items()}
    return {**values, 'change': values['pretrained'] - values['initial']}

  values = compute(np.ones((len(patients), 1)))
  drawn = [compute(weights_NR) for weights_NR in draw_weights(patients, resamples, seed=0)]
  return {title: (float(value[0]), find_interval(np.concatenate([resampled[title] for resampled in drawn])))
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
