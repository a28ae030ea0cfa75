"""From probabilities of findings to predicted labels."""

import numpy as np

from mtpret_jax.evaluation.metrics.scoring import About


def predict_labels(about: About, score_NT: np.ndarray) -> np.ndarray:
  """(N, T) bool. Independent findings are predicted where their probability is above 0.5. Where exactly one finding is
  present, the likeliest is predicted; the first one in a tie."""
  if about['relation'] == 'independent':
    return score_NT > 0.5
  return np.arange(score_NT.shape[1]) == score_NT.argmax(1)[:, None]


def list_scored_findings(about: About) -> list[int]:
  """Indices of the findings that get scores of their own.

  Of two mutually exclusive findings only the second does: it is the positive class, so sensitivity refers to the
  second finding (as in MUSCLE's results table)."""
  count = len(about['findings'])
  return [1] if about['relation'] != 'independent' and count == 2 else list(range(count))
