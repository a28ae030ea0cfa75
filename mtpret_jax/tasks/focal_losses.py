"""Losses of findings with class weights, and focal loss (Lin et al. 2017), which counts easy images less.

`classification.py` uses them where the config asks for either. Letters: B images, T findings.
"""

from collections.abc import Mapping

import numpy as np
from etils import epy

from mtpret_jax.tasks.task import find_rows, sum_known, sum_weighted

with epy.lazy_imports():
  import jax
  import jax.numpy as jnp


def independent_loss(weight_T: np.ndarray, gamma: float, outputs: Mapping,
                     batch: Mapping) -> tuple['jax.Array', 'jax.Array']:
  """Binary focal loss (Lin et al. 2017), its positive part times the finding's weight (PyTorch's `pos_weight`), over
  all known findings. With gamma 0 it is the cross-entropy. A soft label p is p times positive, 1 - p times negative.
  """
  # In logarithms: (1 - p) ** gamma has no finite gradient at p = 1 for gamma < 1.
  log_present_BT, log_absent_BT = jax.nn.log_sigmoid(outputs['logits']), jax.nn.log_sigmoid(-outputs['logits'])
  losses_BT = -(batch['present'] * weight_T[None] * jnp.exp(gamma * log_absent_BT) * log_present_BT
                + (1 - batch['present']) * jnp.exp(gamma * log_present_BT) * log_absent_BT)
  return sum_known(losses_BT, batch['label_mask'] & find_rows(batch)[:, None])


def exclusive_loss(weight_T: np.ndarray, gamma: float, outputs: Mapping,
                   batch: Mapping) -> tuple['jax.Array', 'jax.Array']:
  """Focal softmax cross-entropy over all images whose finding is known: their mean weighted by class, as PyTorch's
  `cross_entropy` has it, times their number."""
  is_true_BT = batch['present'] > 0
  log_BT = jax.nn.log_softmax(outputs['logits'])
  log_true_B = jnp.where(is_true_BT, log_BT, 0).sum(1)
  log_others_B = jax.nn.logsumexp(jnp.where(is_true_BT, -jnp.inf, log_BT), axis=1)
  losses_B = -jnp.exp(gamma * log_others_B) * log_true_B
  is_known_B = (batch['label_mask'] & is_true_BT).any(1) & find_rows(batch)
  return sum_weighted(losses_B, (is_true_BT * weight_T[None]).sum(1), is_known_B)
