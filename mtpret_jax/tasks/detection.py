"""Which boxes of which kind are in an image: Faster R-CNN.

Letters: B images, S sampled candidates, J kinds and the background.
"""

import jax.numpy as jnp
import optax

from mtpret_jax.models.detection.faster_rcnn import FasterRCNN
from mtpret_jax.tasks.task import Task, find_rows

STRIDE = 32
BETA = 1 / 9  # of the codes' smooth L1, torchvision's


def make_detection(about, config):
  """The kinds are `about['box_classes']`; `config` is `FasterRCNN`'s. Boxes are in 0-1 of the image in batches and
  predictions, in pixels within. The loss is of training only, since it asks for candidates drawn at random."""
  def apply(head, features, batch, *, groups, rng):
    size = batch['image'].shape[1:3]
    scale = jnp.array((*size, *size), jnp.float32)[None, None]
    if rng is None:
      found = head.detect(features, size, config)
      return found | {'boxes': found['boxes'] / scale}
    return head.train(features, size, batch['boxes'] * scale, batch['class_id'], config, rng=rng)

  return Task(
    make_head=lambda trunk, rngs: FasterRCNN(trunk.widths, len(about['box_classes']), config, rngs=rngs),
    output_stride=STRIDE,
    apply=apply,
    loss=lambda outputs, batch: add_losses(outputs, find_rows(batch)),
    predict=lambda outputs: outputs)


def add_losses(outputs, rows_B):
  """(sum, count) of what `FasterRCNN.train` gave, over the `rows_B` that count: the four losses of Ren et al. 2015 with
  torchvision's weights, each a mean over all sampled candidates of the batch, the same for every image."""
  objectness = optax.sigmoid_binary_cross_entropy
  regions, found = outputs['regions'], outputs['boxes']
  total = (average(objectness(regions['logits'], (regions['target'] > 0).astype(jnp.float32)),
                   regions, regions['codes'], rows_B)
           + average(optax.softmax_cross_entropy_with_integer_labels(found['logits'], found['target']),
                     found, pick_kind(found['codes'], found['target']), rows_B))
  count = rows_B.sum().astype(jnp.float32)
  return total * count, count


def average(kind_loss_BS, asked, codes_BS4, rows_B):
  """Loss of the kind and, of positives, of the codes; their mean over all candidates that count."""
  counts_BS = asked['counts'] & rows_B[:, None]
  codes_loss_BS = smooth(codes_BS4 - asked['target_codes']).sum(-1) * (asked['target'] > 0)
  return jnp.where(counts_BS, kind_loss_BS + codes_loss_BS, 0).sum() / jnp.maximum(counts_BS.sum(), 1)


def smooth(error):
  """Smooth L1 of PyTorch: quadratic up to BETA."""
  return optax.huber_loss(error, delta=BETA) / BETA


def pick_kind(codes_BSJ4, target_BS):
  """The codes for the kind to find."""
  return jnp.take_along_axis(codes_BSJ4, target_BS[..., None, None], axis=2)[:, :, 0]
