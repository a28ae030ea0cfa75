"""Regression scores: how far predicted values are from the true ones."""

from collections.abc import Sequence

import numpy as np

from mtpret_jax.evaluation.metrics.bootstrap import WeightedScores
from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.evaluation.metrics.scoring import About, Metrics, Rows

COLUMNS = ('predicted', 'value')


def find_headline(about: About) -> str:
  return f'MAE{write_unit(about)}'


def write_unit(about: About) -> str:
  """' (months)', or '' where the dataset names no unit."""
  return f' ({about["value"]["unit"]})' if about['value']['unit'] else ''


def prepare(about: About, rows: Rows) -> Rows:
  """The rows in float64. `predicted` and `value` are (N, 1)."""
  return dict(rows) | {name: np.asarray(rows[name], float) for name in COLUMNS}


def make_scorer(about: About, rows: Rows) -> WeightedScores:
  """'MAE' and 'RMSE' (mean absolute and root mean square error, in the unit of the value), 'R2' (coefficient of
  determination) and 'Pearson r'."""
  truth_N, predicted_N = rows['value'][:, 0], rows['predicted'][:, 0]
  error_N, unit = predicted_N - truth_N, write_unit(about)
  # Subtract the means first: a variance as a difference of two large sums would lose digits.
  x_N, y_N = truth_N - truth_N.mean(), predicted_N - predicted_N.mean()
  moments_MN = np.stack([np.ones_like(x_N), np.abs(error_N), error_N ** 2, x_N, y_N, x_N ** 2, y_N ** 2, x_N * y_N])

  def compute(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    count, *sums = moments_MN @ weights_NR
    absolute, square, x, y, xx, yy, xy = (divide(total, count) for total in sums)
    variance_x, variance_y, covariance = xx - x ** 2, yy - y ** 2, xy - x * y
    # Equal values have a variance of rounding errors. Call that 0, so that R2 and r are undefined.
    variance_x, variance_y = (np.where(variance > 1e-12 * (values_N ** 2).max(), variance, 0)
                              for variance, values_N in ((variance_x, x_N), (variance_y, y_N)))
    return {f'MAE{unit}': absolute, f'RMSE{unit}': np.sqrt(square), 'R2': 1 - divide(square, variance_x),
            'Pearson r': divide(covariance, np.sqrt(variance_x * variance_y))}

  return compute


def find_errors(about: About, rows: Rows) -> np.ndarray:
  """(N,) absolute errors, in the unit of the value."""
  return np.abs(rows['predicted'] - rows['value'])[:, 0]


def name_columns(about: About) -> list[str]:
  return [f'{title}{write_unit(about)}' for title in ('predicted', 'true')]


def write_lines(about: About, rows: Rows) -> list[list[list]]:
  return [[line] for line in np.hstack([rows['predicted'], rows['value']]).tolist()]


def read_lines(about: About, images: Sequence) -> dict[str, np.ndarray]:
  numbers_N2 = np.array([line for line, in images], float).reshape(len(images), 2)
  return {'predicted': numbers_N2[:, :1], 'value': numbers_N2[:, 1:]}


METRICS = Metrics(
  task='regression', columns=COLUMNS, predicted=('predicted',), find_headline=find_headline, prepare=prepare,
  make_scorer=make_scorer, name_columns=name_columns, write_lines=write_lines, read_lines=read_lines,
  sign=-1,  # a mean absolute error
  find_errors=find_errors)
