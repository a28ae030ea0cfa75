"""The difference between two pretrainings on one task, with an interval over patients and over training seeds.

The bootstrap is paired. Each resample draws patients and seeds with replacement, the same ones for both pretrainings:
hard patients then lower both scores alike, and their difference varies less than the scores do.

A bootstrap cannot draw a seed that was not run, so with few seeds its interval is too narrow. `widen_interval` corrects
this. `python -m benchmarks.interval_coverage` simulates how often the interval contains the true difference
(docs/scores.md).

S seeds, N images, R resamples.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation.metrics.bootstrap import draw_weights, find_interval
from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows

NORMAL = float(special.ndtri(0.975))  # 1.96


@dataclasses.dataclass(frozen=True)
class ResampledScore:
  """The headline score of one run on a test split.

  Attributes:
    run: the workdir of the run, for messages.
    images: {image: patient} of the scored images.
    value: of the predictions; NaN where undefined.
    values_R: of each resample of the patients.
  """

  run: str
  images: dict[str, str]
  value: float
  values_R: np.ndarray


@dataclasses.dataclass(frozen=True)
class Difference:
  """A difference in score, positive where the first is better. `interval` is its 95 % interval; both are None where
  undefined."""

  value: float | None
  interval: tuple[float, float] | None


def resample_score(run: str, metrics: Metrics, about: About, rows: Rows, *, resamples: int,
                   seed: int = 0) -> ResampledScore:
  """Scores predictions and `resamples` resamples of their patients.

  Runs with the same patients and the same `seed` get the same resamples, whatever the order of their images.

  Args:
    rows: predictions, as `metrics.read_predictions` returns them.
    seed: of the bootstrap.
  """
  kept = metrics.prepare(about, rows)
  images = dict(zip(map(str, kept['image_id']), map(str, kept['patient']), strict=True))
  if not images:
    return ResampledScore(run, {}, np.nan, np.full(resamples, np.nan))
  headline, measure = metrics.find_headline(about), metrics.make_scorer(about, kept)
  with threadpool_limits(1, 'blas'):  # see `scoring.score`
    values_1 = measure(np.ones((len(images), 1)))[headline]
    drawn = [measure(weights_NR)[headline] for weights_NR in draw_weights(kept['patient'], resamples, seed)]
  return ResampledScore(run, images, float(values_1[0]), np.concatenate([*drawn, np.zeros(0)]))


def compute_difference(first: Sequence[ResampledScore], second: Sequence[ResampledScore], *, sign: int,
                       seed: int = 0) -> Difference:
  """The mean over the seeds of first minus second, times `sign`.

  A resample counts if both scores are defined for each seed that it draws. The interval is widened for few seeds; with
  one seed it is over patients only.

  Args:
    first, second: runs of the same S training seeds, in the same order.
    sign: 1 if a higher score is better, -1 if a lower one is.
    seed: of the bootstrap.

  Raises:
    ConfigError: two runs were scored on different images.
  """
  check_same_images([*first, *second])
  if not first:
    return Difference(None, None)
  value_S = sign * np.array([one.value - other.value for one, other in zip(first, second, strict=True)])
  if np.isnan(value_S).any():
    return Difference(None, None)
  change_SR = sign * np.stack([one.values_R - other.values_R for one, other in zip(first, second, strict=True)])
  drawn_SR = draw_seeds(change_SR.shape[0], change_SR.shape[1], seed)
  interval = find_interval(np.take_along_axis(change_SR, drawn_SR, axis=0).mean(0))
  return Difference(float(value_S.mean()), interval and widen_interval(interval, value_S))


def widen_interval(interval: tuple[float, float], value_S: np.ndarray) -> tuple[float, float]:
  """Corrects a bootstrap interval over patients and seeds for the small number of seeds.

  The variance of the resamples has a part from the patients and one from the seeds. The latter is too small by
  (S - 1) / S (Rao and Wu 1988), and few seeds estimate it badly, so that Student's t takes the place of the normal
  distribution, with the degrees of freedom of Satterthwaite (1946). Both ends move away from the mean by one factor,
  which keeps the interval skewed as the bootstrap found it; an end on the wrong side of the mean stays.

  Args:
    interval: (low, high), percentiles of the resampled mean difference.
    value_S: the difference of each seed on all images.
  """
  seeds, mean, (low, high) = len(value_S), float(value_S.mean()), interval
  from_seeds = float(value_S.var(ddof=1)) / seeds if seeds > 1 else 0.0
  if not from_seeds:
    return interval
  resampled = ((high - low) / (2 * NORMAL)) ** 2
  from_patients = max(resampled - from_seeds * (seeds - 1) / seeds, 0.0)
  variance = from_patients + from_seeds
  freedom = (seeds - 1) * (1 + from_patients / from_seeds) ** 2
  half = float(special.stdtrit(freedom, 0.975)) * variance ** 0.5
  if not resampled:
    return mean - half, mean + half
  more = half / (NORMAL * resampled ** 0.5) - 1
  return low - more * max(mean - low, 0.0), high + more * max(high - mean, 0.0)


def draw_seeds(seeds: int, resamples: int, seed: int) -> np.ndarray:
  """(S, R): the indices of the S seeds that each resample draws, with replacement."""
  # Not the generator of the patients: their draws have the same seed, and both must be independent.
  return np.random.default_rng((seed, seeds)).integers(seeds, size=(seeds, resamples))


def check_same_images(runs: Sequence[ResampledScore]) -> None:
  """Raises ConfigError unless all runs were scored on the same images of the same patients."""
  for run in runs[1:]:
    if run.images != runs[0].images:
      differing = sorted(dict(run.images.items() ^ runs[0].images.items()))
      raise ConfigError(
        f'the runs in {runs[0].run} and {run.run} cannot be compared: the first was scored on {len(runs[0].images):,} '
        f'images, the second on {len(run.images):,}, and {len(differing):,} images, such as {differing[0]!r}, are not '
        f'in both or belong to another patient. Train both with the same data.archives, data.split and task')
