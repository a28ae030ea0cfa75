"""The detector equals torchvision's: anchors, pyramid, proposals, RoIAlign, logits, detections and losses.

`tests/reference/detection_torch.py` recorded torchvision's numbers in detection.npz; the test marked `reference` runs
torchvision itself. There is no trunk: the head gets random feature maps.
"""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import common
from mtpret_jax.models import torchvision_names
from mtpret_jax.models.detection.anchors import make_anchors
from mtpret_jax.models.detection.faster_rcnn import CELLS, FasterRCNN, count_anchors, propose
from mtpret_jax.models.detection.roi_align import roi_align
from mtpret_jax.models.detection.targets import match, sample
from mtpret_jax.tasks.detection import DETECTION
from tests.reference import detection_setting as setting
from tests.reference import draw
from tests.reference.detection_setting import BATCH, CONFIG, FIXTURE, SIZE, WIDTHS

SAMPLED, EVERY = ('maps', 'objectness', 'aligned'), 7  # how the fixture thins large arrays

TASK = DETECTION.make_model({'box_classes': ['active', 'latent']}, CONFIG)
PIXELS = np.float32([*SIZE, *SIZE])  # of a box of the whole image
IMAGE = np.zeros((BATCH, *SIZE, 1), np.uint8)  # only its shape matters
GRAPH, SHAPES = nnx.split(nnx.eval_shape(lambda: TASK.make_head(types.SimpleNamespace(widths=WIDTHS), nnx.Rngs(0))))


def draw_leaf(path, leaf):
  """The leaf at `path`, drawn by its name in torchvision."""
  name = torchvision_names.name_head('detection', path)
  drawn = setting.weight(name.removeprefix('backbone.'), torchvision_names.torch_shape(leaf.shape))
  return torchvision_names.from_torch(drawn, name)


PARAMS = jax.tree.map_with_path(draw_leaf, nnx.to_pure_dict(SHAPES))


@jax.jit
def infer(params, features, rois_BR4):
  head = nnx.merge(GRAPH, params)
  maps, anchors_A4, objectness_BA, deltas_BA4 = head.run_rpn(features, SIZE, CONFIG)
  proposals = propose(objectness_BA, deltas_BA4, anchors_A4, count_anchors(maps, head.rpn), SIZE,
                      CONFIG.rpn_proposals_test, CONFIG.rpn_nms_iou)
  logits, roi_deltas = head.run_roi_head(maps, rois_BR4)
  return {'maps': jnp.concatenate([level.reshape(BATCH, -1) for level in maps], axis=1), 'objectness': objectness_BA,
          'codes': deltas_BA4, 'aligned': roi_align(maps[:-1], rois_BR4, CELLS), 'logits': logits,
          'box_codes': roi_deltas, 'proposals': proposals,
          'found': TASK.predict(TASK.apply(head, features, {'image': IMAGE}, groups=None, rng=None))}


@jax.jit
def compute_losses(params, features, batch):
  def compute(params):
    outputs = TASK.apply(nnx.merge(GRAPH, params), features, batch, groups=1, rng=jax.random.key(0))
    total, count = TASK.loss(outputs, batch)
    return total / count, outputs
  (loss, outputs), gradient = jax.value_and_grad(compute, has_aux=True)(params)
  return loss, outputs, gradient


def run_training(boxes=None, class_id=None, rows=(True,) * BATCH):
  padded = setting.targets(5)
  return compute_losses(PARAMS, setting.features(), {
    'image': IMAGE, 'valid': np.array(rows), 'boxes': (padded[0] if boxes is None else boxes) / PIXELS,
    'class_id': padded[1] if class_id is None else class_id})


@pytest.fixture(scope='module')
def ours():
  return jax.tree.map(np.asarray, infer(PARAMS, setting.features(), setting.rois()))


@pytest.fixture(scope='module')
def trained():
  return run_training()


@pytest.fixture(scope='module')
def recorded():
  with np.load(FIXTURE) as arrays:
    return dict(arrays)


def check_against(theirs, ours, loss, *, thin):
  """`thin`: `theirs` is thinned as in the fixture."""
  for name in ('maps', 'objectness', 'codes', 'aligned', 'logits', 'box_codes'):
    kept = ours[name]
    if thin and name in SAMPLED:
      kept = draw.sample(kept, 8192)
    if thin and name == 'codes':
      kept = kept[:, ::EVERY]
    np.testing.assert_allclose(kept, theirs[name], rtol=0, atol=1e-4, err_msg=name)
  for row in range(BATCH):
    count = len(theirs[f'kind {row}'])
    np.testing.assert_array_equal(ours['found']['class_id'][row, :count], theirs[f'kind {row}'])
    np.testing.assert_allclose(ours['found']['score'][row, :count], theirs[f'score {row}'], atol=1e-4)
    np.testing.assert_allclose(ours['found']['boxes'][row, :count] * PIXELS, theirs[f'boxes {row}'], atol=1e-3)
    assert (ours['found']['class_id'][row, count:] == -1).all() and not ours['found']['score'][row, count:].any()
  names = ('loss_objectness', 'loss_rpn_box_reg', 'loss_classifier', 'loss_box_reg')
  np.testing.assert_allclose(loss, sum(theirs[name] for name in names), rtol=1e-5)


def test_anchors_equal_torchvisions_bit_for_bit(recorded):
  grids = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
  anchors = make_anchors(SIZE, grids, CONFIG.anchor_sizes, CONFIG.aspect_ratios)
  np.testing.assert_array_equal(anchors, recorded['anchors'])


def test_proposals_equal_torchvisions(recorded, ours):
  proposals_BR4, valid_BR = ours['proposals']
  for proposals, valid, row in zip(proposals_BR4, valid_BR, range(BATCH), strict=True):
    theirs = recorded[f'proposals {row}']
    assert valid[:len(theirs)].all() and not valid[len(theirs):].any()
    np.testing.assert_allclose(proposals[valid], theirs, atol=1e-3)


def test_head_equals_torchvisions(recorded, ours, trained):
  check_against(recorded, ours, trained[0], thin=True)
  counts = [len(recorded[f'kind {row}']) for row in range(BATCH)]
  assert min(counts) < CONFIG.max_detections and max(counts) > 1  # some slots stay empty


@pytest.mark.reference
def test_torchvision_itself_gives_the_same(ours, trained):
  pytest.importorskip('torchvision')
  from tests.reference import detection_torch
  check_against(detection_torch.record(), ours, trained[0], thin=False)


@pytest.mark.reference
def test_recipe_at_800_pixels_has_torchvisions_numbers():
  faster_rcnn = pytest.importorskip('torchvision.models.detection.faster_rcnn')
  theirs = {name: parameter.default for name, parameter in inspect.signature(faster_rcnn.FasterRCNN).parameters.items()}
  recipe = common.faster_rcnn(800)
  for step in ('train', 'test'):
    assert recipe[f'rpn_proposals_{step}'] == (
      theirs[f'rpn_pre_nms_top_n_{step}'], theirs[f'rpn_post_nms_top_n_{step}'])
  for ours, name in (('rpn', 'rpn'), ('roi', 'box')):
    assert recipe[f'{ours}_nms_iou'] == theirs[f'{name}_nms_thresh']
    assert recipe[f'{ours}_match_iou'] == (theirs[f'{name}_bg_iou_thresh'], theirs[f'{name}_fg_iou_thresh'])
    count = theirs[f'{name}_batch_size_per_image']
    assert recipe[f'{ours}_sample'] == (count, count * theirs[f'{name}_positive_fraction'])
  assert (recipe.min_score, recipe.max_detections) == (theirs['box_score_thresh'], theirs['box_detections_per_img'])
  anchors = faster_rcnn._default_anchorgen()
  assert recipe.anchor_sizes == anchors.sizes and {recipe.aspect_ratios} == set(anchors.aspect_ratios)


def test_the_content_of_empty_slots_changes_nothing(trained):
  boxes, class_id = setting.targets(5)
  boxes[class_id < 0] = (10, 20, 50, 70)
  loss, _, gradient = run_training(boxes=boxes)
  np.testing.assert_array_equal(loss, trained[0])
  jax.tree.map(np.testing.assert_array_equal, gradient, trained[2])


def test_rows_of_padding_change_nothing(trained):
  """Boxes of a padded image do not change the loss; padding the image does."""
  boxes, class_id = setting.targets(5)
  without, *_ = run_training(rows=(True, True, False))
  boxes[2], class_id[2] = boxes[0] / 2, class_id[0]
  again, *_ = run_training(boxes=boxes, class_id=class_id, rows=(True, True, False))
  np.testing.assert_array_equal(without, again)
  assert without != trained[0]


def test_images_without_boxes_give_a_finite_loss():
  loss, outputs, gradient = run_training(class_id=np.full((BATCH, 5), -1, np.int32))
  assert np.isfinite(loss) and loss > 0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert not outputs['roi']['target_class'].any() and outputs['roi']['sampled'].any()


def test_every_part_of_the_head_learns(trained):
  still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(trained[2])
           if not np.any(leaf)]
  assert not still


def test_a_box_makes_its_best_anchor_positive_and_an_empty_slot_none():
  iou_MN = jnp.array([[0.1, 0.6, 0.6, 0.0, 0.35], [0.0, 0.8, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
  valid_M = jnp.array([True, True, True])
  label_N, box_N = match(iou_MN, valid_M, 0.3, 0.7, allow_low_quality=True)
  assert label_N.tolist() == [0, 1, 1, 0, -1]  # the third as a low-quality match; the last box overlaps nothing
  assert box_N[1] == 1 and box_N[2] == 0
  assert match(iou_MN, valid_M, 0.3, 0.7, allow_low_quality=False)[0].tolist() == [0, 1, -1, 0, -1]
  assert match(iou_MN, jnp.zeros(3, bool), 0.3, 0.7, allow_low_quality=True)[0].tolist() == [0] * 5


@pytest.mark.parametrize('objects, background, expected', [
  (30, 100, (8, 24)),  # enough of both
  (3, 100, (3, 29)),   # the background fills up
  (30, 10, (8, 10)),   # slots stay empty
  (0, 0, (0, 0))])
def test_samples_have_as_many_of_each_as_torchvisions_sampler(objects, background, expected):
  label_N = np.full(150, -1)
  label_N[:objects], label_N[40:40 + background] = 1, 0
  index_S, sampled_S = sample(jnp.asarray(label_N), jax.random.key(1), count=32, max_positives=8)
  taken = np.asarray(index_S)[np.asarray(sampled_S)]
  assert len(set(taken)) == len(taken) == sum(expected) and index_S.shape == (32,)
  assert ((label_N[taken] == 1).sum(), (label_N[taken] == 0).sum()) == expected


def test_anchors_that_do_not_fit_the_pyramid_are_refused():
  config = CONFIG.copy_and_resolve_references()
  config.anchor_sizes = ((32,), (64,))
  with pytest.raises(ValueError, match=r'anchor_sizes=\(\(32,\), \(64,\)\) must have 5 levels with the same number of'):
    FasterRCNN(WIDTHS, 2, config, rngs=nnx.Rngs(0))


def test_every_candidate_is_as_likely_as_the_others():
  label_N = jnp.repeat(jnp.array([1, 0, -1]), 20)
  rngs = jax.random.split(jax.random.key(0), 2000)
  draws = jax.vmap(lambda rng: sample(label_N, rng, count=16, max_positives=4))(rngs)
  hits = np.bincount(np.asarray(draws[0])[np.asarray(draws[1])], minlength=60) / 2000
  np.testing.assert_allclose(hits, np.repeat([4 / 20, 12 / 20, 0], 20), atol=0.05)  # over four standard deviations
