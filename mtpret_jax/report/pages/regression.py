"""Plots of predicted values and the largest errors. N images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtpret_jax.evaluation.metrics.regression import write_unit
from mtpret_jax.report.blocks import Plots, Section, Table
from mtpret_jax.report.plots.values import draw_differences, draw_predicted
from mtpret_jax.report.run_files import RunFiles
from mtpret_jax.report.words import format_number

MISTAKES = 10


def make_sections(run: RunFiles, name: str, result: Mapping[str, Any], about: Mapping[str, Any],
                  rows: Mapping[str, np.ndarray]) -> list[Section]:
  truth_N, predicted_N, unit = rows['value'][:, 0], rows['predicted'][:, 0], write_unit(about)
  worst_N = np.argsort(-np.abs(predicted_N - truth_N), kind='stable')[:MISTAKES]
  lines = [(str(rows['image_id'][at]), str(rows['patient'][at]), *(format_number(float(value)) for value in (
    truth_N[at], predicted_N[at], predicted_N[at] - truth_N[at]))) for at in worst_N]
  return [Section('Predicted and true values', [
    Plots([draw_predicted(truth_N, predicted_N, unit), draw_differences(truth_N, predicted_N, unit)]),
    Table(('image', 'patient', f'true{unit}', f'predicted{unit}', 'difference'), lines, 'The largest errors',
          text_columns=(0, 1), folded=True)])]
