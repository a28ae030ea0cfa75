"""Probes of a frozen trunk: k nearest neighbours (kNN) and a linear model on its features.

Both are fitted on the training split and scored on the validation split. The splits share no patient if `data.split`
is 'patient'; with the other rules they may. The trunk runs in inference mode, with its running statistics.

A score means little alone: many findings can be predicted from an image's greys, or from an untrained trunk. So the
same probes run on baselines too: small images, grey histograms, and the initial weights with calibrated statistics.

Letters: N training images, M validation images, C feature channels, T findings, R resamples of the bootstrap.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from mtpret_jax.evaluation.probe_models import limit_threads, predict_findings, predict_value, standardise
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.models.trunk import make_trunk
from mtpret_jax.objectives import Trunk
from mtpret_jax.objectives.modules import take_stats
from mtpret_jax.step import TrainState

PROBES = ('knn', 'linear')
CHUNK = 64  # images that go through the trunk at a time
PIXELS = 16  # side of the small images, px
BINS = 32  # of the grey histogram
CALIBRATION = 2048  # at most this many images set the running statistics of `calibrate`

log = logging.getLogger(__name__)

Split = dict[str, Any]  # see `read_split`
Datasets = dict[str, dict[str, Split]]  # {dataset: {'train' | 'validation': ...}}
Features = dict[str, dict[str, np.ndarray]]  # {dataset: {'train' | 'validation': (images, C)}}
Embed = Callable[..., np.ndarray]  # see `make_embedder`


def find_trunk(state: TrainState) -> Trunk:
  """The trunk of a state of stage 1 on the host: (params, stats)."""
  return jax.device_get((state.params['trunk'], state.carry['stats']['trunk']))


def read_datasets(config: ConfigDict, images: int, labelled: bool = False) -> Datasets:
  """Images and labels of the training and the validation split of every configured dataset.

  A dataset without a validation split is left out, and so is one in `data.whole`: its validation images were training
  images.

  Args:
    images: at most this many of each split, drawn by the seed.
    labelled: leave out the datasets with neither findings nor a value.
  """
  datasets: Datasets = {}
  for name in config.data.datasets:
    if name in config.data.whole:
      log.info('%s is not probed: all its images are training images (data.whole)', name)
      continue
    try:
      sources = [open_source(name, config.data.dir, config.data.stored_size, split, config.data.split)
                 for split in ('train', 'validation')]
    except MissingSplit as error:
      log.info('%s is not probed: %s', name, error)
    else:
      if not labelled or sources[0].about['findings'] or sources[0].about['value']:
        datasets[name] = {source.split: read_split(source, config, images) for source in sources}
  return datasets


def read_split(source: Source, config: ConfigDict, images: int) -> Split:
  """Up to `images` records, drawn by the seed. Those of a smaller number are among those of a larger one.

  Returns:
    `image` (N, size, size, 1) uint8; `patient` (N,); `about`, the metadata of the dataset; `present` and `label_mask`
    (N, T) if it has findings; `value` (N, 1) if it has a value.
  """
  rows = np.random.default_rng(config.seed).permutation(len(source))[:images]
  records = [source.records[int(row)] for row in np.sort(rows)]
  split: Split = {field: np.stack([record[field] for record in records])
                  for field in ('present', 'label_mask', 'value') if records and field in records[0]}
  split['image'] = np.stack([decode_image(record['image'], config.data.size) for record in records])
  split['patient'] = np.array([record['patient'] for record in records])
  return split | {'about': source.about}


def make_embed(trunk: str, size: int, dtype: str) -> Callable[[Mapping, Mapping, jax.Array], jax.Array]:
  """embed(params, stats, images (B, H, W, 1) uint8) -> (B, C): the mean of the trunk's last feature map for whole
  images, which are resized to `size` px. It is not compiled."""
  graph = nnx.split(nnx.eval_shape(lambda: make_trunk(trunk, rngs=nnx.Rngs(0))))[0]

  def embed(params: Mapping, stats: Mapping, images: jax.Array) -> jax.Array:
    return pool_mean(nnx.merge(graph, params, stats)(views.make_plain(images, size, dtype), groups=None)[-1])
  return embed


def make_embedder(config: ConfigDict) -> Embed:
  """embed(params, stats, images) -> (N, C): the trunk's pooled features of N whole images, each (H, W, 1) uint8. With a
  `title`, it shows a progress bar."""
  embed_chunk = jax.jit(make_embed(config.trunk, config.augment.size, config.dtype))

  def embed(params: Mapping, stats: Mapping, images: Sequence[np.ndarray], title: str = '') -> np.ndarray:
    chunks = []
    for at in tqdm(range(0, len(images), CHUNK), desc=title, unit='batch', leave=False, disable=not title or None):
      chunk = np.stack(images[at:at + CHUNK])
      padded = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0), (0, 0), (0, 0)))  # one shape, so one compilation
      chunks.append(np.asarray(embed_chunk(params, stats, padded))[:len(chunk)])
    return np.concatenate(chunks)

  return embed


def embed_datasets(embed: Embed, trunk: Trunk, datasets: Datasets, title: str = '') -> Features:
  """The features of all images by a trunk. With a `title`, the name of the trunk, it shows a progress bar."""
  parts = [(name, split, part['image']) for name, splits in datasets.items() for split, part in splits.items()]
  # The images of all splits in a row: embedding each split by itself would pad each to whole chunks.
  images = [image for _, _, images in parts for image in images]
  embedded = embed(*trunk, images, title=f'features of the {title} trunk' if title else '')
  features: Features = {name: {} for name in datasets}
  ends = np.cumsum([len(images) for _, _, images in parts])
  for (name, split, _), rows in zip(parts, np.split(embedded, ends[:-1]), strict=True):
    features[name][split] = rows
  return features


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
  graph = nnx.split(nnx.eval_shape(lambda: make_trunk(config.trunk, rngs=nnx.Rngs(0))))[0]

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
  with limit_threads():
    for name, label, metric in tqdm(list_scored(datasets), desc='probing', unit='dataset', leave=False, disable=None):
      train, validation = datasets[name]['train'], datasets[name]['validation']
      row = {'dataset': name, 'metric': metric, 'train': len(train['image']), 'validation': len(validation['image'])}
      for probe in PROBES:
        scores = {title: fit_and_score(probe, label, train, validation, all_features[name], config.probe)
                  for title, all_features in features.items()}
        row[probe] = compare(scores, validation['patient'], config.probe.resamples)
      rows.append(row)
  return rows


def list_scored(datasets: Datasets) -> list[tuple[str, str, str]]:
  """(dataset, field of its label, name of its score) of the datasets that can be scored: with a value, or with a
  finding that is both present and absent among the validation images."""
  scored = []
  for name, splits in datasets.items():
    train, validation = splits['train'], splits['validation']
    label = next((field for field in PREDICT_AND_SCORE if field in train), None)
    if label is None:
      continue
    score = PREDICT_AND_SCORE[label][1](validation, np.zeros_like(validation[label]))
    if not np.isnan(score(np.ones((len(validation['image']), 1)))):
      scored.append((name, label, 'AUROC' if label == 'present' else f'MAE ({train["about"]["value"]["unit"]})'))
  return scored


def fit_and_score(probe: str, label: str, train: Split, validation: Split, features: Mapping[str, np.ndarray],
                  config: ConfigDict) -> WeightedScore:
  """Fits a probe on the features of the training images. Returns its score on the validation images as a function of
  their weights.

  Args:
    features: 'train' and 'validation'; and where `train` is a draw, 'all' training images, labelled or not. The linear
      probe standardises by these: few images would make channels that hardly vary among them look important.
    config: `config.probe`.
  """
  predict, make_score = PREDICT_AND_SCORE[label]
  parts = [features['train'], features['validation']]
  if probe == 'linear':
    parts = standardise(features.get('all', features['train']), *parts)
  return make_score(validation, predict(probe, train, *parts, config))


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


def count_digits(metric: str) -> int:
  """Decimals to print of a score."""
  return 3 if metric == 'AUROC' else 1


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
