"""Which of T findings are present, from the mean over the last map.

Letters: B images, T findings.
"""

import jax
import optax

from mtpret_jax.models.heads import LinearHead
from mtpret_jax.tasks.task import Task, find_rows, sum_known

STRIDE = 32


def make_classification(about, config):
  """`about`: what the dataset says of itself. Its `findings` are independent, each a question of its own with binary
  cross-entropy; or exactly one is present ('exclusive', 'ordinal'), with softmax cross-entropy. That the order of
  ordinal ones is known to the scores only, not to the loss, is our choice. `config` has nothing to say."""
  one_of = about['relation'] != 'independent'
  return Task(
    make_head=lambda trunk, rngs: LinearHead(trunk.channels, len(about['findings']), rngs=rngs),
    output_stride=STRIDE,
    apply=lambda head, features, batch, *, groups, rng: {'logits': head(features)},
    loss=compare_one if one_of else compare_each,
    predict=lambda outputs: {'score': (jax.nn.softmax if one_of else jax.nn.sigmoid)(outputs['logits'])})


def compare_each(outputs, batch):
  """Over all findings whose presence is known."""
  losses_BT = optax.sigmoid_binary_cross_entropy(outputs['logits'], batch['present'])
  return sum_known(losses_BT, batch['label_mask'] & find_rows(batch)[:, None])


def compare_one(outputs, batch):
  """Over all images of which it is known which finding is present."""
  losses_B = optax.softmax_cross_entropy(outputs['logits'], batch['present'])
  stated_B = (batch['label_mask'] & (batch['present'] > 0)).any(1)
  return sum_known(losses_B, stated_B & find_rows(batch))
