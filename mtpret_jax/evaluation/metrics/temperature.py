"""Temperature scaling (Guo et al. 2017): probabilities whose logits are divided by one number, fitted on validation."""

from typing import Any

import numpy as np

from mtpret_jax.evaluation.metrics.scoring import About, Rows

RANGE = (0.05, 20.0)  # of a temperature
# float32 cannot express a probability between 1 - 6e-8 and 1, which a large logit gives.
MARGIN = 2.0 ** -24


def apply_temperature(about: About, score_NT: np.ndarray, temperature: float) -> np.ndarray:
  """(N, T) probabilities at this temperature, as float32; the array itself at 1."""
  if temperature == 1:
    return score_NT
  return scale(compute_logits(about, score_NT), about, temperature).astype(np.float32)


def compute_logits(about: About, score_NT: np.ndarray) -> np.ndarray:
  """Logits with these probabilities; those of a softmax up to a constant of each image."""
  score_NT = np.clip(np.asarray(score_NT, float), np.finfo(np.float32).tiny, 1 - MARGIN)
  return np.log(score_NT) - (np.log1p(-score_NT) if about['relation'] == 'independent' else 0)


def scale(logit_NT: np.ndarray, about: About, temperature: float) -> np.ndarray:
  logit_NT = logit_NT / temperature
  if about['relation'] == 'independent':
    return 1 / (1 + np.exp(-logit_NT))
  power_NT = np.exp(logit_NT - logit_NT.max(1, keepdims=True))
  return power_NT / power_NT.sum(1, keepdims=True)


def fit_temperature(about: About, rows: Rows) -> float:
  """The temperature with the smallest cross-entropy of all known findings together, from RANGE; 1 without a known one.

  `rows` are those that `classification.prepare` gives."""
  from scipy.optimize import minimize_scalar  # only here: reader processes import this package
  label_mask_NT, present_NT = np.asarray(rows['label_mask'], bool), np.asarray(rows['present']) > 0
  if not label_mask_NT.any():
    return 1.0
  logit_NT = compute_logits(about, rows['score'])

  def cross_entropy(log_temperature: float) -> float:
    score_NT = np.clip(scale(logit_NT, about, np.exp(log_temperature)), 1e-12, 1 - 1e-12)
    losses_NT = -np.log(np.where(present_NT, score_NT, 1 - score_NT if about['relation'] == 'independent' else 1))
    return float(losses_NT[label_mask_NT].mean())

  found: Any = minimize_scalar(cross_entropy, bounds=tuple(np.log(RANGE)), method='bounded')
  return float(np.exp(found['x']))
