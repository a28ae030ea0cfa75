"""Which of T classes each pixel belongs to: DeepLab-V3.

Letters: B images, H W their rows and columns, T classes; without the background in `miss_overlap`.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from mtpret_jax.models.deeplab import DeepLab
from mtpret_jax.tasks.task import Task, find_rows, sum_known

SMOOTH = 1e-5  # pixels, in numerator and denominator of the soft Dice (nnU-Net, Isensee et al. 2021)


def make_segmentation(about, config):
  """The classes are `about['mask']`, the first is the background. `config`: output_stride, width, dilations, and `dice`,
  the weight of the soft Dice loss beside the cross-entropy; 0 is none."""
  def make_head(trunk, rngs):
    return DeepLab(trunk.channels, len(about['mask']), width=config.width, dilations=config.dilations, rngs=rngs)

  def apply(head, features, batch, *, groups, rng):
    return {'logits': head(features, batch['image'].shape[1:3], groups=groups, rng=rng)}

  return Task(make_head, config.output_stride, apply, functools.partial(compare, config.dice),
              predict=lambda outputs: {'mask': outputs['logits'].argmax(-1).astype(jnp.int32)})


def compare(dice, outputs, batch):
  """Cross-entropy over the annotated pixels, those whose mask is not -1, and `dice` times the soft Dice loss."""
  mask_BHW = batch['mask']
  annotated_BHW = (mask_BHW >= 0) & find_rows(batch)[:, None, None]
  losses_BHW = optax.softmax_cross_entropy_with_integer_labels(outputs['logits'], jnp.maximum(mask_BHW, 0))
  total, count = sum_known(losses_BHW, annotated_BHW)
  if dice:
    total += dice * miss_overlap(outputs['logits'], mask_BHW, annotated_BHW) * count
  return total, count


def miss_overlap(logits_BHWT, mask_BHW, annotated_BHW):
  """1 - soft Dice (Milletari et al. 2016, with p instead of p^2 below the line) of each class but the background in
  each image, over its annotated pixels; the mean over classes and over the images that have such pixels."""
  there_BHW1 = annotated_BHW[..., None].astype(jnp.float32)
  share_BHWT = jax.nn.softmax(logits_BHWT)[..., 1:] * there_BHW1
  truth_BHWT = jax.nn.one_hot(mask_BHW, logits_BHWT.shape[-1])[..., 1:] * there_BHW1
  both_BT, either_BT = (share_BHWT * truth_BHWT).sum((1, 2)), (share_BHWT + truth_BHWT).sum((1, 2))
  missed_B = 1 - ((2 * both_BT + SMOOTH) / (either_BT + SMOOTH)).mean(1)
  total, count = sum_known(missed_B, annotated_BHW.any((1, 2)))
  return total / jnp.maximum(count, 1)
