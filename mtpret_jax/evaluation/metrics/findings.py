"""One finding, present or not: how well it is ranked and decided."""

import numpy as np

from mtpret_jax.evaluation.metrics.nan_arithmetic import divide
from mtpret_jax.evaluation.metrics.ranking import make_ranking


def make_finding(present_N, score_N, decided_N, counts_N):
  """measure(weights_NR) -> {'AUC', 'AP', 'accuracy', 'sensitivity', 'specificity'}, each (R,) in 0..1, over the rows
  that count. `decided_N` bool: what the scores were taken to mean."""
  rank = make_ranking(present_N, score_N, counts_N)
  ill_N, well_N = counts_N & (present_N > 0), counts_N & (present_N <= 0)
  rows_4N = np.stack([ill_N, well_N, ill_N & decided_N, well_N & ~decided_N]).astype(float)

  def measure(weights_NR):
    ill, well, found, cleared = rows_4N @ weights_NR
    return rank(weights_NR) | {'accuracy': divide(found + cleared, ill + well), 'sensitivity': divide(found, ill),
                               'specificity': divide(cleared, well)}

  return measure
