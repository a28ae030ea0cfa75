"""How many labels a linear model on the frozen trunk needs: its scores after a share of the training labels.

A gain from pretraining is largest where labels are few (MoCo-CXR, Sowrirajan et al. 2021). So the linear probe is
fitted on small draws of the training images as well. The pretrained and the initial trunk get the same draws, and
both are scored on the same validation images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mtpret_jax.evaluation import probe
from mtpret_jax.evaluation.metrics.bootstrap import WeightedScore
from mtpret_jax.evaluation.metrics.nan_arithmetic import average
from mtpret_jax.evaluation.probe_models import limit_threads


def score_shares(datasets: probe.Datasets, features: Mapping[str, probe.Features],
                 config: ConfigDict) -> list[dict[str, Any]]:
  """Scores the linear probe after each share of `probe.fractions`.

  Args:
    features: {title: features}, with the titles 'initial' and 'pretrained'.

  Returns:
    A row for each dataset with labels: `dataset`; `metric`, as of `probe.score_features`; `labelled`, the number of
    training images with a label; and `shares`, a dict for each of `list_draws`: `fraction`; `images`, the mean number
    of training images of a draw; and for 'initial', 'pretrained' and 'change' the score, as the mean over the draws,
    with its 95 % interval over validation patients. The interval does not cover the choice of the training images.
  """
  rows = []
  with limit_threads():
    for name, label, metric in tqdm(probe.list_scored(datasets), desc='shares of the labels', unit='dataset',
                                    leave=False, disable=None):
      row = {'dataset': name, 'metric': metric, 'labelled': len(list_labelled(datasets[name]['train'])), 'shares': []}
      for fraction, draws in list_draws(datasets[name]['train'], config).items():
        scores = {title: score_draws(label, datasets[name], features[title][name], draws, config.probe)
                  for title in ('initial', 'pretrained')}
        row['shares'].append({
          'fraction': fraction, 'images': float(np.mean([len(rows_N) for rows_N in draws])),
          **probe.compare(scores, datasets[name]['validation']['patient'], config.probe.resamples)})
      rows.append(row)
  return rows


def score_draws(label: str, splits: Mapping[str, probe.Split], features: Mapping[str, np.ndarray],
                draws: list[np.ndarray], config: ConfigDict) -> WeightedScore:
  """The mean score of the linear probe over draws of the training images, as a function of the validation images'
  weights. `config` is `config.probe`."""
  fields = [field for field in ('present', 'label_mask', 'value') if field in splits['train']]
  scores = [probe.fit_and_score(
    'linear', label, {field: splits['train'][field][rows_N] for field in fields}, splits['validation'],
    {**features, 'train': features['train'][rows_N], 'all': features['train']}, config) for rows_N in draws]
  return lambda weights_MR: average([score(weights_MR) for score in scores])


def list_draws(train: probe.Split, config: ConfigDict) -> dict[float, list[np.ndarray]]:
  """{fraction: its draws}, the smallest first. Of fractions with the same images only the largest is kept: on a small
  dataset, `probe.per_class` may be more than either."""
  kept = {}  # the images of all draws -> (fraction, draws)
  for fraction in sorted(config.probe.fractions):
    draws = draw_subsets(train, fraction, config)
    kept[frozenset(rows_N.tobytes() for rows_N in draws)] = fraction, draws
  return dict(kept.values())


def draw_subsets(train: probe.Split, fraction: float, config: ConfigDict) -> list[np.ndarray]:
  """Places of the training images of each draw. All labels can be drawn once only."""
  draws = 1 if fraction == 1 else config.probe.draws
  return [draw_subset(train, fraction, config.probe.per_class, np.random.default_rng((config.seed, draw)))
          for draw in range(draws)]


def draw_subset(train: probe.Split, fraction: float, per_class: int, rng: np.random.Generator) -> np.ndarray:
  """Places of a random share of the labelled training images, in ascending order.

  It has `per_class` images in which a finding is present and as many in which it is absent, for each finding, where
  there are as many. These may exceed the share. With the same `rng`, a smaller share is a subset of a larger one.
  """
  order = rng.permutation(list_labelled(train))
  chosen = np.zeros(len(train['image']), bool)
  for member_N in list_classes(train):
    members = order[member_N[order]]
    missing = per_class - int(chosen[members].sum())
    chosen[members[~chosen[members]][:max(missing, 0)]] = True
  size = max(int(np.ceil(fraction * len(order))), min(per_class, len(order)))
  rest = order[~chosen[order]]
  chosen[rest[:max(size - int(chosen.sum()), 0)]] = True
  return np.flatnonzero(chosen)


def list_labelled(train: probe.Split) -> np.ndarray:
  """Places of the images with a label: a value, or a finding that is known."""
  return np.flatnonzero(train['label_mask'].any(1)) if 'present' in train else np.arange(len(train['image']))


def list_classes(train: probe.Split) -> list[np.ndarray]:
  """The images with each finding present, and those with it absent, as masks; the rarest first, because an image of a
  rare class counts for others too. A value has no classes."""
  if 'present' not in train:
    return []
  present_NT, known_NT = train['present'] > 0, train['label_mask']
  return sorted([*(present_NT & known_NT).T, *(~present_NT & known_NT).T], key=np.sum)
