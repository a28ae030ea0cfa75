"""How far predicted values are from the true ones."""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide

COLUMNS = ('predicted', 'value')
PREDICTED = ('predicted',)


def find_headline(about):
  return f'MAE{write_unit(about)}'


def write_unit(about):
  """' (months)', or nothing where the dataset names no unit."""
  return f' ({about["value"]["unit"]})' if about['value']['unit'] else ''


def prepare(about, rows):
  """`predicted` and `value` are (N, 1)."""
  return rows | {name: np.asarray(rows[name], float) for name in COLUMNS}


def make_measure(about, rows):
  """Mean absolute error and root mean square error in the unit of the value, the coefficient of determination R2 and
  Pearson's r."""
  truth_N, guess_N = rows['value'][:, 0], rows['predicted'][:, 0]
  error_N, unit = guess_N - truth_N, write_unit(about)
  # about their means, so that differences of large sums do not lose digits
  x_N, y_N = truth_N - truth_N.mean(), guess_N - guess_N.mean()
  moments_MN = np.stack([np.ones_like(x_N), np.abs(error_N), error_N ** 2, x_N, y_N, x_N ** 2, y_N ** 2, x_N * y_N])

  def measure(weights_NR):
    count, *sums = moments_MN @ weights_NR
    absolute, square, x, y, xx, yy, xy = (divide(total, count) for total in sums)
    spread, spread_y, together = xx - x ** 2, yy - y ** 2, xy - x * y
    # what rounding leaves of equal values is no spread
    spread, spread_y = (np.where(var > 1e-12 * (values_N ** 2).max(), var, 0)
                        for var, values_N in ((spread, x_N), (spread_y, y_N)))
    return {f'MAE{unit}': absolute, f'RMSE{unit}': np.sqrt(square), 'R2': 1 - divide(square, spread),
            'Pearson r': divide(together, np.sqrt(spread * spread_y))}

  return measure
