"""Which of T classes each pixel belongs to: DeepLab-V3.

Letters: B images, H W their rows and columns, T classes.
"""

import jax.numpy as jnp
import optax

from mtpret_jax.models.deeplab import DeepLab
from mtpret_jax.tasks.task import Task, find_rows, sum_known


def make_segmentation(about, config):
  """The classes are `about['mask']`, the first is the background. `config`: output_stride, width, rates."""
  def make_head(trunk, rngs):
    return DeepLab(trunk.channels, len(about['mask']), width=config.width, rates=config.rates, rngs=rngs)

  def answer(head, features, batch, *, groups, rng):
    return {'logits': head(features, batch['image'].shape[1:3], groups=groups, rng=rng)}

  return Task(make_head, config.output_stride, answer, compare,
              predict=lambda outputs: {'mask': outputs['logits'].argmax(-1).astype(jnp.int32)})


def compare(outputs, batch):
  """Cross-entropy over the annotated pixels, those whose mask is not -1."""
  mask_BHW = batch['mask']
  losses_BHW = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], jnp.maximum(mask_BHW, 0))
  return sum_known(losses_BHW, (mask_BHW >= 0) & find_rows(batch)[:, None, None])
