"""How Dice is distributed over the images, and the worst images. N images, T classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.report.blocks import Plots, Section, Table, shade
from mtpret_jax.report.plots.values import draw_distribution
from mtpret_jax.report.run_files import RunFiles
from mtpret_jax.report.words import format_number

MISTAKES = 10


def make_sections(run: RunFiles, name: str, result: Mapping[str, Any], about: Mapping[str, Any],
                  rows: Mapping[str, np.ndarray]) -> list[Section]:
  confusion_NTT, classes = rows['confusion'], about['mask'][1:]  # class 0 is the background
  both_NT = confusion_NTT.sum(1) + confusion_NTT.sum(2)
  dice_NT = divide(2 * np.diagonal(confusion_NTT, axis1=1, axis2=2), both_NT)[:, 1:]
  defined = {title: dice_N[~np.isnan(dice_N)] for title, dice_N in zip(classes, dice_NT.T, strict=True)}
  mean_N = divide(np.nansum(dice_NT, 1), (~np.isnan(dice_NT)).sum(1))
  worst_N = [at for at in np.argsort(mean_N, kind='stable')[:MISTAKES] if not np.isnan(mean_N[at])]
  lines = [(str(rows['image_id'][at]), str(rows['patient'][at]),
            *('-' if np.isnan(dice) else format_number(float(dice)) for dice in (mean_N[at], *dice_NT[at])))
           for at in worst_N]
  return [Section('Dice of each image', [
    Plots([draw_distribution(defined, 'Dice', 'Dice')]),
    Table(('image', 'patient', 'mean Dice', *classes), lines, 'The worst images', text_columns=(0, 1))]),
          Section('Confusion matrix', [make_confusion(about['mask'], confusion_NTT.sum(0))])]


def make_confusion(names: list[str], count_TT: np.ndarray) -> Table:
  """The pixels of all images by true and predicted class."""
  share_TT = count_TT / np.maximum(count_TT.sum(1, keepdims=True), 1)
  return Table(('true', *(f'predicted {name}' for name in names)),
               [(name, *(shade(f'{share:.1%}', share) for share in shares))
                for name, shares in zip(names, share_TT, strict=True)],
               'Where the pixels of each true class go.')
