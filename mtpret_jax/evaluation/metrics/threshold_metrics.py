"""What probabilities of findings are taken to mean."""

import numpy as np


def decide(about, score_NT):
  """(N, T) bool: independent findings above 0.5, of exclusive and ordinal ones the likeliest, the first of equals."""
  if about['relation'] == 'independent':
    return score_NT > 0.5
  return np.arange(score_NT.shape[1]) == score_NT.argmax(1)[:, None]


def find_asked(about):
  """The numbers of the findings that have scores of their own. Of two that exclude each other it is the second:
  sensitivity is that of the positive class (as in MUSCLE's results table)."""
  count = len(about['findings'])
  return [1] if about['relation'] != 'independent' and count == 2 else list(range(count))
