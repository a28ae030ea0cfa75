"""Scores predictions of any kind of task: values, 95 % intervals over patients, and the headline score of subgroups."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mtpret_jax.evaluation.metrics.bootstrap import draw_weights, find_interval
from mtpret_jax.evaluation.metrics.subgroups import find_subgroups

ABOUT_IMAGES = ('image_id', 'patient', 'study', 'sex', 'age', 'view', 'part')
UNDEFINED = {'value': None, 'interval': None}

About = Mapping[str, Any]  # a dataset's metadata
Rows = Mapping[str, np.ndarray]  # one entry per image in each column


class NotFinite(ValueError):
  """A prediction is not a number."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """The thresholds of one kind of task, see `operating_points.py`. `rows` are those of `Metrics.prepare`.

  Attributes:
    name_classes: about -> the findings or classes of boxes that can have a threshold.
    choose: (about, rows, rule) -> ({class: its threshold}, what the rule is called). Classes may be missing.
    make_scorer: (about, rows, {class: threshold}) -> a function like that of `Metrics.make_scorer`. Its scores are
      called 'NAME: CLASS'; one of the names is 'n', what there is of the class.
  """

  name_classes: Callable[[About], list[str]]
  choose: Callable[[About, Rows, str], tuple[dict[str, float], str]]
  make_scorer: Callable[[About, Rows, Mapping[str, float]], Callable[[np.ndarray], dict[str, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Metrics:
  """How the predictions of one kind of task are scored and written to a table. `rows` has a row per image.

  Attributes:
    task: the name of the kind of task.
    columns: the columns of `rows` beside those in ABOUT_IMAGES.
    predicted: the columns that the model predicts, which must be finite.
    find_headline: about -> the name of the score that decides between models.
    prepare: (about, rows) -> the rows that can be scored.
    make_scorer: (about, rows) -> a function weights_NR -> {score: (R,)}; weights_NR says how often each of N images is
      drawn in each of R resamples, see `bootstrap.py`.
    name_columns: about -> titles of the columns of the table of predictions.
    write_lines: (about, rows) -> for each image, its lines of cells.
    read_lines: (about, lines of cells of each image) -> columns of `rows`.
    ragged: the columns whose arrays differ in length from image to image, such as boxes: object arrays.
    sign: -1 if a lower headline score is better, as for an error, else 1.
    thresholds: how thresholds are chosen and scored; None for a kind of task without thresholds.
    find_errors: (about, prepared rows) -> (N,), how wrong the prediction of each image is, at least 0; NaN where that
      is not defined. It finds the best and the worst cases for pictures.
  """

  task: str
  columns: tuple[str, ...]
  predicted: tuple[str, ...]
  find_headline: Callable[[About], str]
  prepare: Callable[[About, Rows], Rows]
  make_scorer: Callable[[About, Rows], Callable[[np.ndarray], dict[str, np.ndarray]]]
  name_columns: Callable[[About], list[str]]
  write_lines: Callable[[About, Rows], list[list[list]]]
  read_lines: Callable[[About, Sequence], dict[str, np.ndarray]]
  ragged: tuple[str, ...] = ()
  sign: int = 1
  thresholds: Thresholds | None = None
  find_errors: Callable[[About, Rows], np.ndarray] | None = None


def score(metrics: Metrics, about: About, rows: Rows, *, resamples: int, seed: int = 0) -> dict[str, Any]:
  """Scores `rows`, a dict of arrays with one entry per image.

  Args:
    metrics: of the kind of task, such as `mtpret_jax.tasks.KINDS['classification'].metrics`.
    about: the dataset's metadata.
    rows: `image_id`, `patient`, `study`, `sex`, `view`, `part` (N,) text, '' where unknown; `age` (N,) in years, NaN
      where unknown; and `metrics.columns`:
      classification  `score` (N, T) probabilities, `present` (N, T) 0 or 1, `label_mask` (N, T) bool
      regression      `predicted`, `value` (N, 1) in the unit of the value
      segmentation    `confusion` (N, T, T) annotated pixels by true class, then by predicted class
      detection       `boxes` (K, 4) as y0, x0, y1, x1 in 0-1, `class_id`, `score` (K,), `truth_boxes`,
                      `truth_class_id`: object arrays over images; `sizes` (N, 2) rows and columns of the image
    resamples: of the bootstrap, which draws patients with all their images.

  Returns:
    `task`; `headline`, the name of a score; `sign`, -1 if a lower headline score is better, else 1; `scores` {name:
    {'value', 'interval'}}, the value None where it is undefined, the interval None where no resample defines it or
    there is only one patient; `groups` [{'by', 'group', 'images', 'patients', 'value', 'interval'}], the headline score
    in subgroups; `images` and `patients` scored; `left_out`, images without an annotation that counts; `resamples`,
    `seed`.

  Raises:
    ValueError: a missing column, columns of different lengths, or the same image twice.
    NotFinite: a prediction is not finite.
  """
  check_rows(metrics, rows)
  rows = {name: rows[name] for name in (*ABOUT_IMAGES, *metrics.columns)}
  # These matrix products are thin: BLAS threads cost more than they gain (41 s against 7 s on a busy host).
  with threadpool_limits(1, 'blas'):
    return score_rows(metrics, about, rows, resamples, seed)


def score_rows(metrics: Metrics, about: About, rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  kept = metrics.prepare(about, rows)
  headline = metrics.find_headline(about)
  groups = [{'by': by, 'group': group, **count(members),
             **measure_rows(metrics, about, members, resamples, seed, only=headline).get(headline, UNDEFINED)}
            for by, group, chosen in find_subgroups(kept) for members in [take(kept, chosen)]]
  scores = measure_rows(metrics, about, kept, resamples, seed)
  return {'task': metrics.task, 'headline': headline, 'sign': metrics.sign,
          'scores': scores or {headline: UNDEFINED}, 'groups': groups, **count(kept),
          'left_out': len(rows['patient']) - len(kept['patient']), 'resamples': resamples, 'seed': seed}


def describe_undefined(metrics: Metrics, about: About, rows: Rows) -> dict[str, Any]:
  """The result of `score` for predictions that are not finite: the headline score is undefined, and no other is given.
  """
  headline = metrics.find_headline(about)
  return {'task': metrics.task, 'headline': headline, 'sign': metrics.sign, 'scores': {headline: UNDEFINED},
          'groups': [], **count(rows), 'left_out': 0, 'resamples': 0, 'seed': 0}


def check_rows(metrics: Metrics, rows: Rows) -> None:
  """Raises ValueError where rows are incomplete; see `score`."""
  lengths = {}
  for name in (*ABOUT_IMAGES, *metrics.columns):
    if name not in rows:
      raise ValueError(f'rows for {metrics.task} lack {name!r}: they have {", ".join(rows)}')
    lengths[name] = len(rows[name])
  if len(set(lengths.values())) > 1:
    raise ValueError(f'columns of rows differ in length: {lengths}; there must be one row per image')
  names, times = np.unique(rows['image_id'], return_counts=True)
  if (times > 1).any():
    raise ValueError(f'image {names[times.argmax()]!r} occurs {times.max()} times: there must be one row per image, '
                     f'without padding')
  for name in metrics.predicted:
    broken = sum(not np.isfinite(values).all() for values in rows[name])
    if broken:
      raise NotFinite(f'{name!r} is not finite for {broken} of {len(names)} images: the model that predicted it has '
                      f'diverged; use another checkpoint')


def count(rows: Rows) -> dict[str, int]:
  return {'images': len(rows['patient']), 'patients': len(np.unique(rows['patient']))}


def to_objects(arrays: Iterable) -> np.ndarray:
  """(N,) object array, also where all arrays have the same shape."""
  listed = list(arrays)
  objects = np.empty(len(listed), object)
  for index, array in enumerate(listed):  # assigning the list at once would fail where all shapes are equal
    objects[index] = array
  return objects


def take(rows: Rows, chosen_N: np.ndarray) -> Rows:
  return {name: values[chosen_N] for name, values in rows.items()}


def measure_rows(metrics: Metrics, about: About, rows: Rows, resamples: int, seed: int,
                 only: str | None = None) -> dict[str, dict]:
  """{name: {'value', 'interval'}} of all scores, or of the one named `only`; {} if there are no rows."""
  if not len(rows['patient']):
    return {}
  measure = metrics.make_scorer(about, rows)
  values = measure(np.ones((len(rows['patient']), 1)))
  names = [only] if only else list(values)
  drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
  if len(np.unique(rows['patient'])) > 1:
    for weights_NR in draw_weights(rows['patient'], resamples, seed):
      found = measure(weights_NR)
      for name in names:
        drawn[name].append(found[name])
  return {name: {'value': None if np.isnan(values[name][0]) else float(values[name][0]),
                 'interval': find_interval(np.concatenate([*drawn[name], np.zeros(0)]))} for name in names}
