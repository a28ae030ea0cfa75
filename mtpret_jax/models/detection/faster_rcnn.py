"""Faster R-CNN (Ren et al. 2015) on a feature pyramid, as torchvision's `fasterrcnn_resnet50_fpn`, with fixed shapes.

Boxes are (y0, x0, y1, x1) in pixels of the image that the trunk saw. `config` holds the numbers:

  width, hidden                channels of the pyramid and of the box head
  sides, ratios                of the anchors, see `anchors.py`
  train, test                  (proposals per level before suppression, per image after it)
  rpn_nms_iou               more than this with a better proposal, and a proposal goes
  rpn_match_iou, roi_match_iou      (background below, object from) this overlap with an annotated box
  rpn_sample, roi_sample    (candidates per image that count in training, at most so many of them objects)
  score, roi_nms_iou           detections below the one, or above the other with a better one of their kind, go
  detections                   per image

Letters: B images, A anchors, L levels, N the best of each, Q those of all levels, R proposals, S sampled candidates,
M annotated boxes, D detections, K kinds, J kinds and the background, which is the first.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtpret_jax.models.conv import BiasedConv
from mtpret_jax.models.detection import boxes
from mtpret_jax.models.detection.anchors import make_anchors
from mtpret_jax.models.detection.fpn import FeaturePyramid
from mtpret_jax.models.detection.roi_align import align
from mtpret_jax.models.detection.targets import choose, match
from mtpret_jax.models.heads import Linear

CELLS = 7  # along each side of an aligned region
REGION_WEIGHTS, BOX_WEIGHTS = (1, 1, 1, 1), (10, 10, 5, 5)  # of the codes
REGION_SIDE, BOX_SIDE = 1e-3, 1e-2  # px; what is smaller is no proposal and no detection


class RegionHead(nnx.Module):
  """Maps of the pyramid -> (objectness_BA, codes_BA4) in f32, over all levels in the order of the anchors."""

  def __init__(self, channels, anchors, *, rngs):
    init = nnx.initializers.normal(0.01)
    self.conv = BiasedConv(channels, channels, 3, rngs=rngs, init=init)
    self.logits = BiasedConv(channels, anchors, 1, rngs=rngs, init=init)
    self.codes = BiasedConv(channels, anchors * 4, 1, rngs=rngs, init=init)

  def __call__(self, maps):
    seen = [jax.nn.relu(self.conv(map_BHWC)).astype(jnp.float32) for map_BHWC in maps]
    batch = len(maps[0])
    return (jnp.concatenate([self.logits(level).reshape(batch, -1) for level in seen], axis=1),
            jnp.concatenate([self.codes(level).reshape(batch, -1, 4) for level in seen], axis=1))


class BoxHead(nnx.Module):
  """Aligned regions (B, R, CELLS, CELLS, C) -> (logits_BRJ, codes_BRJ4) in f32."""

  def __init__(self, channels, hidden, kinds, *, rngs):
    self.fc6 = Linear(CELLS * CELLS * channels, hidden, rngs=rngs)
    self.fc7 = Linear(hidden, hidden, rngs=rngs)
    self.logits = Linear(hidden, kinds + 1, rngs=rngs)
    self.codes = Linear(hidden, (kinds + 1) * 4, rngs=rngs)

  def __call__(self, regions_BRPPC):
    flat = regions_BRPPC.reshape(-1, CELLS * CELLS * regions_BRPPC.shape[-1])
    hidden = jax.nn.relu(self.fc7(jax.nn.relu(self.fc6(flat))))
    regions = regions_BRPPC.shape[:2]
    return self.logits(hidden).reshape(*regions, -1), self.codes(hidden).reshape(*regions, -1, 4)


class FasterRCNN(nnx.Module):
  """Head for `box_classes` of boxes on a trunk with maps of `widths` channels at strides 4 to 32. It has no batch norm.

  `train` gives what the loss needs and `detect` the detections. They run the parts through `propose` and the others.
  """

  def __init__(self, widths, kinds, config, *, rngs):
    anchors = {len(sides) for sides in config.anchor_sizes}
    if len(anchors) != 1 or len(config.anchor_sizes) != len(widths) + 1:
      raise ValueError(f'anchor sides {config.anchor_sizes} must be {len(widths) + 1} levels of equally many sides')
    self.pyramid = FeaturePyramid(widths, config.width, rngs=rngs)
    self.regions = RegionHead(config.width, anchors.pop() * len(config.aspect_ratios), rngs=rngs)
    self.boxes = BoxHead(config.width, config.roi_hidden, kinds, rngs=rngs)

  def train(self, features, size, boxes_BM4, kind_BM, config, *, rng):
    """The answers of both stages and what they should have been, for the candidates that count.

    `size`: (height, width) of the image; `boxes_BM4` px, `kind_BM` from 0, -1 where the slot is empty. Returns
    'regions' and 'boxes', each a dict of (B, S, ...) arrays: what `ask` gives, and 'logits' and 'codes', the answers.
    """
    maps, anchors_A4, objectness_BA, codes_BA4 = self.look(features, size, config)
    draw_rows = jax.vmap(jax.random.fold_in, (None, 0))
    rng_regions, rng_boxes = (draw_rows(stage, jnp.arange(len(kind_BM))) for stage in jax.random.split(rng))
    ask_regions = jax.vmap(functools.partial(ask, thresholds=config.rpn_match_iou, sample=config.rpn_sample,
                                             claim=True, weights=REGION_WEIGHTS), (None, None, 0, 0, 0))
    index_BS, _, regions = ask_regions(anchors_A4, jnp.ones(len(anchors_A4), bool), boxes_BM4, kind_BM, rng_regions)
    regions['logits'] = jnp.take_along_axis(objectness_BA, index_BS, 1)
    regions['codes'] = jnp.take_along_axis(codes_BA4, index_BS[..., None], 1)

    found_BR4, real_BR = propose(objectness_BA, codes_BA4, anchors_A4, split_levels(maps, self.regions), size,
                                 config.rpn_proposals_train, config.rpn_nms_iou)
    found_BR4 = jnp.concatenate([found_BR4, boxes_BM4], axis=1)  # so that there is something to find from the start
    real_BR = jnp.concatenate([real_BR, kind_BM >= 0], axis=1)
    ask_boxes = jax.vmap(functools.partial(ask, thresholds=config.roi_match_iou, sample=config.roi_sample, claim=False,
                                           weights=BOX_WEIGHTS))
    _, found_BS4, asked = ask_boxes(found_BR4, real_BR, boxes_BM4, kind_BM, rng_boxes)
    asked['logits'], asked['codes'] = self.judge(maps, found_BS4)
    return {'regions': regions, 'boxes': asked}

  def detect(self, features, size, config):
    """{'boxes' (B, D, 4) px, 'class_id' (B, D) from 0, 'score' (B, D) in 0..1}, best first; empty slots have kind -1, score
    0 and a box of zeros."""
    maps, anchors_A4, objectness_BA, codes_BA4 = self.look(features, size, config)
    found_BR4, real_BR = propose(objectness_BA, codes_BA4, anchors_A4, split_levels(maps, self.regions), size,
                                 config.rpn_proposals_test, config.rpn_nms_iou)
    logits_BRJ, codes_BRJ4 = self.judge(maps, found_BR4)
    return jax.vmap(functools.partial(select, size=size, config=config))(logits_BRJ, codes_BRJ4, found_BR4, real_BR)

  def look(self, features, size, config):
    """(maps, anchors_A4, objectness_BA, codes_BA4): everything up to the proposals."""
    maps = self.pyramid(features)
    anchors_A4 = make_anchors(size, [map_BHWC.shape[1:3] for map_BHWC in maps], config.anchor_sizes, config.aspect_ratios)
    return maps, jnp.asarray(anchors_A4), *self.regions(maps)

  def judge(self, maps, regions_BR4):
    """(logits_BRJ, codes_BRJ4) of regions; the top level of the pyramid is for proposals only."""
    return self.boxes(align(maps[:-1], regions_BR4, CELLS))


def split_levels(maps, head):
  """The number of anchors on each level."""
  per_place = head.logits.bias.shape[0]
  return [map_BHWC.shape[1] * map_BHWC.shape[2] * per_place for map_BHWC in maps]


def propose(objectness_BA, codes_BA4, anchors_A4, counts, size, limits, overlap):
  """(proposals_BR4, real_BR): the anchors moved to where something seems to be, best first. `counts`: anchors on each
  level, which are suppressed level by level. No gradient passes. Slots that are not `real` hold zeros."""
  before, after = limits
  objectness_BA, codes_BA4 = jax.lax.stop_gradient((objectness_BA, codes_BA4))
  most = min(before, max(counts))
  starts = np.cumsum([0, *counts[:-1]])
  scores, indices = [], []
  for start, count in zip(starts, counts, strict=True):
    score_BN, index_BN = boxes.find_best(objectness_BA[:, start:start + count], min(before, count))
    scores.append(fill(score_BN, most, -jnp.inf))
    indices.append(fill(index_BN + start, most, 0))
  score_BLN, index_BLN = jnp.stack(scores, axis=1), jnp.stack(indices, axis=1)

  index_BQ = index_BLN.reshape(len(index_BLN), -1)
  codes_BQ4 = jnp.take_along_axis(codes_BA4, index_BQ[..., None], 1)
  found_BQ4 = boxes.clip(boxes.decode(codes_BQ4, anchors_A4[index_BQ], REGION_WEIGHTS), size)
  found_BLN4 = found_BQ4.reshape(*index_BLN.shape, 4)
  score_BLN = jnp.where(is_large(found_BLN4, REGION_SIDE), score_BLN, -jnp.inf)
  keep_BLN = jax.vmap(jax.vmap(functools.partial(boxes.suppress, threshold=overlap)))(found_BLN4, score_BLN)
  score_BQ = jnp.where(keep_BLN, score_BLN, -jnp.inf).reshape(index_BQ.shape)
  score_BR, index_BR = boxes.find_best(score_BQ, after)
  real_BR = score_BR > -jnp.inf
  found_BR4 = jnp.take_along_axis(found_BQ4, index_BR[..., None], 1)
  return jnp.where(real_BR[..., None], found_BR4, 0), real_BR


def fill(values_BN, count, empty):
  """(B, count): further slots that hold `empty`."""
  return jnp.pad(values_BN, ((0, 0), (0, count - values_BN.shape[1])), constant_values=empty)


def is_large(boxes_N4, side):
  return (boxes_N4[..., 2:] - boxes_N4[..., :2] >= side).all(-1)


def ask(found_N4, real_N, boxes_M4, kind_M, rng, *, thresholds, sample, claim, weights):
  """For one image: (index_S, found_S4, asked). `asked`: 'target' (S,) is the kind to find, from 1, or 0 for the
  background; 'target_codes' (S, 4) lead to its box and are zero for the background; 'counts' (S,) bool."""
  label_N, box_N = match(boxes.compute_ious(boxes_M4, found_N4), kind_M >= 0, *thresholds, claim=claim)
  label_N = jnp.where(real_N, label_N, -1)
  index_S, counts_S = choose(label_N, rng, count=sample[0], positives=sample[1])
  positive_S = counts_S & (label_N[index_S] == 1)
  found_S4, box_S = found_N4[index_S], box_N[index_S]
  code_S4 = boxes.encode(boxes_M4[box_S], found_S4, weights)
  return index_S, found_S4, {
    'target': jnp.where(positive_S, kind_M[box_S] + 1, 0),
    'target_codes': jnp.where(positive_S[:, None], code_S4, 0),
    'counts': counts_S}


def select(logits_RJ, codes_RJ4, found_R4, real_R, *, size, config):
  """The detections of one image: every proposal is a candidate for every kind, suppressed kind by kind."""
  score_RK = jax.nn.softmax(logits_RJ)[:, 1:]
  boxes_RK4 = boxes.clip(boxes.decode(codes_RJ4[:, 1:], found_R4[:, None], BOX_WEIGHTS), size)
  fits_RK = real_R[:, None] & (score_RK > config.min_score) & is_large(boxes_RK4, BOX_SIDE)
  score_RK = jnp.where(fits_RK, score_RK, -jnp.inf)
  suppress = jax.vmap(functools.partial(boxes.suppress, threshold=config.roi_nms_iou), (1, 1), 1)
  score_N = jnp.where(suppress(boxes_RK4, score_RK), score_RK, -jnp.inf).ravel()
  score_N = jnp.pad(score_N, (0, max(config.max_detections - len(score_N), 0)), constant_values=-jnp.inf)
  score_D, index_D = boxes.find_best(score_N, config.max_detections)
  real_D = score_D > -jnp.inf
  index_D = jnp.where(real_D, index_D, 0)
  return {'boxes': jnp.where(real_D[:, None], boxes_RK4.reshape(-1, 4)[index_D], 0),
          'class_id': jnp.where(real_D, index_D % score_RK.shape[1], -1).astype(jnp.int32),
          'score': jnp.where(real_D, score_D, 0)}
