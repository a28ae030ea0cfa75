"""Faster R-CNN (Ren et al. 2015) with a feature pyramid, as torchvision's `fasterrcnn_resnet50_fpn`, in fixed shapes.

    trunk's maps -> FPN -> RPN: objectness and box deltas of every anchor -> proposals -> RoI head -> detections

Boxes are (y0, x0, y1, x1) in pixels of the image that the trunk saw. Lists of boxes have a fixed number of slots; empty
slots are marked, so that nothing is gathered to the host and every step has the same shapes.

The numbers in `config`:

  width                       channels of the pyramid
  roi_hidden                  channels of the RoI head's hidden layers
  anchor_sizes, aspect_ratios see `anchors.py`
  rpn_proposals_train         (proposals per level before NMS, per image after it) while training
  rpn_proposals_test          the same for inference
  rpn_nms_iou                 NMS threshold for proposals
  rpn_match_iou               IoU with an annotated box: (background below this, object from this on)
  rpn_sample                  (anchors per image that enter the loss, the maximum number of positives among them)
  roi_match_iou, roi_sample   the same for proposals
  min_score                   detections below this score are dropped
  roi_nms_iou                 NMS threshold for detections of the same class
  max_detections              per image

Letters: B images, A anchors, N the best anchors of a level, Q those of all levels, R RoIs, S sampled candidates, M
annotated boxes, D detections, K classes, J classes and the background, which is the first.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from mtpret_jax.models.conv import BiasedConv
from mtpret_jax.models.detection import boxes
from mtpret_jax.models.detection.anchors import make_anchors
from mtpret_jax.models.detection.fpn import FeaturePyramid
from mtpret_jax.models.detection.roi_align import roi_align
from mtpret_jax.models.detection.targets import make_targets
from mtpret_jax.models.heads import Linear

CELLS = 7  # along each side of an aligned RoI
RPN_WEIGHTS, ROI_WEIGHTS = (1, 1, 1, 1), (10, 10, 5, 5)  # of the box deltas, torchvision's
MIN_PROPOSAL_SIDE, MIN_DETECTION_SIDE = 1e-3, 1e-2  # px; smaller boxes are dropped


class RPNHead(nnx.Module):
  """Pyramid maps -> (objectness_BA, deltas_BA4) in f32, over all levels in the order of the anchors."""

  def __init__(self, channels: int, anchors_per_cell: int, *, rngs: nnx.Rngs) -> None:
    # One head serves all levels: they have the same channels, and the anchors grow with the stride.
    init = nnx.initializers.normal(0.01)
    self.conv = BiasedConv(channels, channels, 3, rngs=rngs, init=init)
    self.cls_logits = BiasedConv(channels, anchors_per_cell, 1, rngs=rngs, init=init)
    self.bbox_pred = BiasedConv(channels, anchors_per_cell * 4, 1, rngs=rngs, init=init)

  def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # The outputs are f32 also in a bfloat16 network: boxes need more than bf16's eight bits.
    hidden = [jax.nn.relu(self.conv(map_BHWC)).astype(jnp.float32) for map_BHWC in maps]
    batch = maps[0].shape[0]  # not `len`: an exported model has a batch of any size
    return (jnp.concatenate([self.cls_logits(level).reshape(batch, -1) for level in hidden], axis=1),
            jnp.concatenate([self.bbox_pred(level).reshape(batch, -1, 4) for level in hidden], axis=1))


class RoIHead(nnx.Module):
  """Aligned RoIs (B, R, CELLS, CELLS, C) -> (logits_BRJ, deltas_BRJ4) in f32.

  torchvision's `TwoMLPHead` and `FastRCNNPredictor`. The box deltas are per class.
  """

  def __init__(self, channels: int, hidden: int, classes: int, *, rngs: nnx.Rngs) -> None:
    self.fc6 = Linear(CELLS * CELLS * channels, hidden, rngs=rngs)
    self.fc7 = Linear(hidden, hidden, rngs=rngs)
    self.cls_score = Linear(hidden, classes + 1, rngs=rngs)
    self.bbox_pred = Linear(hidden, (classes + 1) * 4, rngs=rngs)

  def __call__(self, rois_BRPPC: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat = rois_BRPPC.reshape(-1, CELLS * CELLS * rois_BRPPC.shape[-1])
    hidden = jax.nn.relu(self.fc7(jax.nn.relu(self.fc6(flat))))
    batch, rois = rois_BRPPC.shape[:2]
    return self.cls_score(hidden).reshape(batch, rois, -1), self.bbox_pred(hidden).reshape(batch, rois, -1, 4)


class FasterRCNN(nnx.Module):
  """Head for boxes of `classes` classes, on a trunk with maps of `widths` channels at strides 4, 8, 16, 32. No batch
  norm.

  `sample_for_loss` gives what the training loss needs, `detect` gives the detections.
  """

  def __init__(self, widths: Sequence[int], classes: int, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
    sizes_per_level = {len(sizes) for sizes in config.anchor_sizes}
    if len(sizes_per_level) != 1 or len(config.anchor_sizes) != len(widths) + 1:
      raise ValueError(f'anchor_sizes={config.anchor_sizes} must have {len(widths) + 1} levels with the same '
                       f'number of sizes')
    self.fpn = FeaturePyramid(widths, config.width, rngs=rngs)
    self.rpn = RPNHead(config.width, sizes_per_level.pop() * len(config.aspect_ratios), rngs=rngs)
    self.roi_head = RoIHead(config.width, config.roi_hidden, classes, rngs=rngs)

  def sample_for_loss(self, features: Sequence[jax.Array], image_size: tuple[int, int], boxes_BM4: jax.Array,
                      class_BM: jax.Array, config: ConfigDict, *, rng: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Outputs and targets of the RPN and the RoI head for a random sample of candidates.

    Args:
      image_size: (height, width) of the image, px.
      boxes_BM4: annotated boxes, px.
      class_BM: their classes from 0, -1 in empty slots.

    Returns:
      {'rpn': ..., 'roi': ...}, each a dict of (B, S, ...) arrays: `logits` and `deltas`, which are the outputs, and
      `target_class`, `target_deltas` and `sampled` of `targets.make_targets`.
    """
    maps, anchors_A4, objectness_BA, deltas_BA4 = self.run_rpn(features, image_size, config)
    rng_rpn, rng_roi = (fold_in_rows(stage, len(class_BM)) for stage in jax.random.split(rng))
    index_BS, rpn = target_anchors(anchors_A4, boxes_BM4, class_BM, rng_rpn, config)
    rpn |= take_samples(objectness_BA, deltas_BA4, index_BS)
    # Only sampled proposals are pooled and classified, which costs a quarter of pooling all (512 of 2,000 with
    # torchvision's numbers).
    rois_BR4, valid_BR = propose(objectness_BA, deltas_BA4, anchors_A4, count_anchors(maps, self.rpn), image_size,
                                 config.rpn_proposals_train, config.rpn_nms_iou)
    rois_BS4, roi = target_rois(rois_BR4, valid_BR, boxes_BM4, class_BM, rng_roi, config)
    roi['logits'], roi['deltas'] = self.run_roi_head(maps, rois_BS4)
    return {'rpn': rpn, 'roi': roi}

  def detect(self, features: Sequence[jax.Array], image_size: tuple[int, int],
             config: ConfigDict) -> dict[str, jax.Array]:
    """Detections, best first: 'boxes' (B, D, 4) px, 'class_id' (B, D) from 0, 'score' (B, D) in 0-1.

    Empty slots have class -1, score 0 and a box of zeros.
    """
    maps, anchors_A4, objectness_BA, deltas_BA4 = self.run_rpn(features, image_size, config)
    rois_BR4, valid_BR = propose(objectness_BA, deltas_BA4, anchors_A4, count_anchors(maps, self.rpn), image_size,
                                 config.rpn_proposals_test, config.rpn_nms_iou)
    logits_BRJ, deltas_BRJ4 = self.run_roi_head(maps, rois_BR4)
    select = jax.vmap(functools.partial(select_detections, image_size=image_size, config=config))
    return select(logits_BRJ, deltas_BRJ4, rois_BR4, valid_BR)

  def run_rpn(self, features: Sequence[jax.Array], image_size: tuple[int, int],
              config: ConfigDict) -> tuple[list[jax.Array], jax.Array, jax.Array, jax.Array]:
    """(pyramid maps, anchors_A4, objectness_BA, deltas_BA4)."""
    maps = self.fpn(features)
    grids = [(map_BHWC.shape[1], map_BHWC.shape[2]) for map_BHWC in maps]
    anchors_A4 = make_anchors(image_size, grids, config.anchor_sizes, config.aspect_ratios)
    return maps, jnp.asarray(anchors_A4), *self.rpn(maps)

  def run_roi_head(self, maps: Sequence[jax.Array], rois_BR4: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(logits_BRJ, deltas_BRJ4) of RoIs. The top level of the pyramid serves proposals only."""
    return self.roi_head(roi_align(maps[:-1], rois_BR4, CELLS))


def fold_in_rows(rng: jax.Array, rows: int) -> jax.Array:
  """A random key for each image, the same on any number of devices."""
  return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(rows))


def target_anchors(anchors_A4: jax.Array, boxes_BM4: jax.Array, class_BM: jax.Array, rng_B: jax.Array,
                   config: ConfigDict) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(index_BS, targets): the anchors that enter the loss of the RPN, and their targets as of `targets.make_targets`.

  Every anchor is a candidate, also one that reaches out of the image, as in torchvision. Low-quality matches are
  allowed, because a small box may overlap no anchor enough and the RPN would never learn it.
  """
  make = jax.vmap(functools.partial(
    make_targets, match_iou=config.rpn_match_iou, sample_size=config.rpn_sample, allow_low_quality=True,
    weights=RPN_WEIGHTS), (None, None, 0, 0, 0))
  index_BS, _, targets = make(anchors_A4, jnp.ones(len(anchors_A4), bool), boxes_BM4, class_BM, rng_B)
  return index_BS, targets


def take_samples(objectness_BA: jax.Array, deltas_BA4: jax.Array, index_BS: jax.Array) -> dict[str, jax.Array]:
  """`logits` (B, S) and `deltas` (B, S, 4) of the anchors in the sample."""
  return {'logits': jnp.take_along_axis(objectness_BA, index_BS, 1),
          'deltas': jnp.take_along_axis(deltas_BA4, index_BS[..., None], 1)}


def target_rois(rois_BR4: jax.Array, valid_BR: jax.Array, boxes_BM4: jax.Array, class_BM: jax.Array, rng_B: jax.Array,
                config: ConfigDict) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(rois_BS4, targets): the proposals that enter the loss of the RoI head, and their targets."""
  # The annotated boxes join the proposals: an untrained RPN proposes nothing that would match.
  rois_BR4 = jnp.concatenate([rois_BR4, boxes_BM4], axis=1)
  valid_BR = jnp.concatenate([valid_BR, class_BM >= 0], axis=1)
  make = jax.vmap(functools.partial(
    make_targets, match_iou=config.roi_match_iou, sample_size=config.roi_sample, allow_low_quality=False,
    weights=ROI_WEIGHTS))
  _, rois_BS4, targets = make(rois_BR4, valid_BR, boxes_BM4, class_BM, rng_B)
  return rois_BS4, targets


def count_anchors(maps: Sequence[jax.Array], rpn: RPNHead) -> list[int]:
  """The number of anchors on each level."""
  per_cell = rpn.cls_logits.bias.shape[0]
  return [map_BHWC.shape[1] * map_BHWC.shape[2] * per_cell for map_BHWC in maps]


def propose(objectness_BA: jax.Array, deltas_BA4: jax.Array, anchors_A4: jax.Array, counts: Sequence[int],
            image_size: tuple[int, int], limits: tuple[int, int], nms_iou: float) -> tuple[jax.Array, jax.Array]:
  """(proposals_BR4, valid_BR): the anchors with the highest objectness, moved by their deltas, best first.

  No gradient flows through proposals. Empty slots hold zeros.

  Args:
    counts: anchors on each level; NMS runs within a level.
    limits: (proposals per level before NMS, proposals per image after it).
  """
  before_nms, after_nms = limits
  # The RPN learns from its own loss only; torchvision detaches proposals as well.
  objectness_BA, deltas_BA4 = jax.lax.stop_gradient((objectness_BA, deltas_BA4))
  nms = jax.vmap(functools.partial(boxes.nms, threshold=nms_iou))
  scores, candidates = [], []
  # Level by level, each with its own number of slots: one NMS over all levels would pad the small ones to the largest.
  for stop, count in zip(np.cumsum(counts), counts, strict=True):
    level = slice(stop - count, stop)
    score_BN, index_BN = boxes.top_k(objectness_BA[:, level], min(before_nms, count))
    deltas_BN4 = jnp.take_along_axis(deltas_BA4[:, level], index_BN[..., None], 1)
    # Clipped before the test of their sides: a box that lies outside of the image is then dropped.
    boxes_BN4 = boxes.clip(boxes.decode(deltas_BN4, anchors_A4[level][index_BN], RPN_WEIGHTS), image_size)
    score_BN = jnp.where(has_sides(boxes_BN4, MIN_PROPOSAL_SIDE), score_BN, -jnp.inf)
    # From here on, a score of -inf marks an empty slot; the sort below moves empty slots to the end.
    scores.append(jnp.where(nms(boxes_BN4, score_BN), score_BN, -jnp.inf))
    candidates.append(boxes_BN4)
  score_BQ, boxes_BQ4 = jnp.concatenate(scores, axis=1), jnp.concatenate(candidates, axis=1)
  score_BR, index_BR = boxes.top_k(score_BQ, after_nms)
  valid_BR = score_BR > -jnp.inf
  proposals_BR4 = jnp.take_along_axis(boxes_BQ4, index_BR[..., None], 1)
  return jnp.where(valid_BR[..., None], proposals_BR4, 0), valid_BR


def has_sides(boxes_N4: jax.Array, least: float) -> jax.Array:
  """(N,) bool: whether both sides of the box are at least `least`."""
  return (boxes_N4[..., 2:] - boxes_N4[..., :2] >= least).all(-1)


def select_detections(logits_RJ: jax.Array, deltas_RJ4: jax.Array, rois_R4: jax.Array, valid_R: jax.Array, *,
                      image_size: tuple[int, int], config: ConfigDict) -> dict[str, jax.Array]:
  """The detections of one image. Every RoI is a candidate for every class; NMS runs within a class."""
  score_RK = jax.nn.softmax(logits_RJ)[:, 1:]  # without the background, so a row sums to less than 1
  boxes_RK4 = boxes.clip(boxes.decode(deltas_RJ4[:, 1:], rois_R4[:, None], ROI_WEIGHTS), image_size)
  candidate_RK = valid_R[:, None] & (score_RK > config.min_score) & has_sides(boxes_RK4, MIN_DETECTION_SIDE)
  score_RK = jnp.where(candidate_RK, score_RK, -jnp.inf)
  # torchvision shifts the boxes of each class apart and runs one NMS; here `vmap` keeps the classes apart.
  nms = jax.vmap(functools.partial(boxes.nms, threshold=config.roi_nms_iou), (1, 1), 1)
  score_N = jnp.where(nms(boxes_RK4, score_RK), score_RK, -jnp.inf).ravel()
  # Fewer candidates than max_detections is possible with tiny settings; the result must have its slots all the same.
  score_N = jnp.pad(score_N, (0, max(config.max_detections - len(score_N), 0)), constant_values=-jnp.inf)
  score_D, index_D = boxes.top_k(score_N, config.max_detections)
  valid_D = score_D > -jnp.inf
  index_D = jnp.where(valid_D, index_D, 0)  # an empty slot may come from the padding, where there is no box
  class_D = index_D % score_RK.shape[1]  # candidates are (R, K), flattened
  return {'boxes': jnp.where(valid_D[:, None], boxes_RK4.reshape(-1, 4)[index_D], 0),
          'class_id': jnp.where(valid_D, class_D, -1).astype(jnp.int32),
          'score': jnp.where(valid_D, score_D, 0)}
