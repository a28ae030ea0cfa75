"""What a task's predictions are worth: scores, 95 % intervals, and the headline of subgroups."""

import numpy as np
from threadpoolctl import threadpool_limits

from mtpret_jax.evaluation.metrics import classification, detection, regression, segmentation
from mtpret_jax.evaluation.metrics.bootstrap import draw_weights, find_interval
from mtpret_jax.evaluation.metrics.subgroups import find_subgroups

TASKS = {'classification': classification, 'detection': detection, 'regression': regression,
         'segmentation': segmentation}
ABOUT_IMAGES = ('image_id', 'patient', 'study', 'sex', 'age', 'view', 'part')
UNDEFINED = {'value': None, 'interval': None}


def score(task, about, rows, *, resamples, seed=0):
  """Scores `rows`, a dict of arrays with one row per image, of a dataset that says `about` itself.

  Args:
    rows: of every task `image_id`, `patient`, `study`, `sex`, `view`, `part` (N,) text, '' where unknown, and `age`
      (N,) in years, NaN where unknown. Besides these
      classification  `score` (N, T) probabilities, `present` (N, T) 0 or 1, `label_mask` (N, T) bool
      regression      `predicted`, `value` (N, 1) in the unit of the value
      segmentation    `confusion` (N, T, T) annotated pixels of the true class (first T) predicted as the second
      detection       `boxes` (K, 4) y0, x0, y1, x1 in 0-1, `class_id`, `score` (K,), `truth_boxes`, `truth_class_id`: object
                      arrays over images; `sizes` (N, 2) rows and columns of the image
    resamples: of the bootstrap, in which patients are drawn with all their images.

  Returns:
    `task`; `headline`, the name of a score; `scores` {name: {'value', 'interval'}}, the value None where not defined,
    the interval too if no resample has it or one patient is all there is; `groups` [{'by', 'group', 'images',
    'patients', 'value', 'interval'}], the headline in subgroups; `images` and `patients` scored; `left_out`, images
    of which nothing that counts is annotated; `resamples`, `seed`.

  Raises:
    ValueError: for an unknown task, a missing column, columns of different lengths, an image that is there twice, or a
      prediction that is no number.
  """
  rule = check(task, rows)
  rows = {name: rows[name] for name in (*ABOUT_IMAGES, *rule.COLUMNS)}
  # thin products gain nothing from threads, and on a busy host lose much: 41 s became 7
  with threadpool_limits(1, 'blas'):
    return score_rows(task, rule, about, rows, resamples, seed)


def score_rows(task, rule, about, rows, resamples, seed):
  kept = rule.prepare(about, rows)
  headline = rule.find_headline(about)
  groups = [{'by': by, 'group': group, **count(members),
             **measure_rows(rule, about, members, resamples, seed, only=headline).get(headline, UNDEFINED)}
            for by, group, chosen in find_subgroups(kept) for members in [take(kept, chosen)]]
  scores = measure_rows(rule, about, kept, resamples, seed)
  return {'task': task, 'headline': headline, 'scores': scores or {headline: UNDEFINED}, 'groups': groups,
          **count(kept), 'left_out': len(rows['patient']) - len(kept['patient']), 'resamples': resamples, 'seed': seed}


def check(task, rows):
  """The module that scores the task, once the rows are found to be complete."""
  if task not in TASKS:
    raise ValueError(f'unknown task {task!r}; have {", ".join(TASKS)}')
  lengths = {}
  for name in (*ABOUT_IMAGES, *TASKS[task].COLUMNS):
    if name not in rows:
      raise ValueError(f'rows for {task} lack {name!r}; have {", ".join(rows)}')
    lengths[name] = len(rows[name])
  if len(set(lengths.values())) > 1:
    raise ValueError(f'columns of rows differ in length: {lengths}; there must be one row per image')
  names, times = np.unique(rows['image_id'], return_counts=True)
  if (times > 1).any():
    raise ValueError(f'image {names[times.argmax()]!r} is there {times.max()} times; leave out the rows of padding')
  for name in TASKS[task].PREDICTED:
    broken = sum(not np.isfinite(values).all() for values in rows[name])
    if broken:
      raise ValueError(f'{name!r} of {broken} of {len(names)} images is not finite; the model that gave it is broken')
  return TASKS[task]


def count(rows):
  return {'images': len(rows['patient']), 'patients': len(np.unique(rows['patient']))}


def take(rows, chosen_N):
  return {name: values[chosen_N] for name, values in rows.items()}


def measure_rows(rule, about, rows, resamples, seed, only=None):
  """{name: {'value', 'interval'}} of all scores, or of `only` one; {} of no rows."""
  if not len(rows['patient']):
    return {}
  measure = rule.make_measure(about, rows)
  values = measure(np.ones((len(rows['patient']), 1)))
  names = [only] if only else list(values)
  drawn = {name: [] for name in names}
  if len(np.unique(rows['patient'])) > 1:
    for weights_NR in draw_weights(rows['patient'], resamples, seed):
      found = measure(weights_NR)
      for name in names:
        drawn[name].append(found[name])
  return {name: {'value': None if np.isnan(values[name][0]) else float(values[name][0]),
                 'interval': find_interval(np.concatenate([*drawn[name], np.zeros(0)]))} for name in names}
