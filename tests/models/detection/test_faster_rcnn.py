"""The detector is torchvision's: anchors, maps, proposals, aligned regions, logits, detections and losses.

`tests/reference/detection_torch.py` recorded torchvision's numbers in detection.npz; the test marked `reference` runs
torchvision itself. The trunk is left out: the maps that the head is given are drawn.
"""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import common
from mtpret_jax.models import torchvision_weights
from mtpret_jax.models.detection.anchors import make_anchors
from mtpret_jax.models.detection.faster_rcnn import CELLS, FasterRCNN, propose, split_levels
from mtpret_jax.models.detection.roi_align import align
from mtpret_jax.models.detection.targets import choose, match
from mtpret_jax.tasks import make_task
from tests.reference import detection_setting as setting
from tests.reference import draw
from tests.reference.detection_setting import BATCH, CONFIG, FIXTURE, SIZE, WIDTHS

NAMES = {f'pyramid/{ours}/{level}': f'fpn.{ours}_blocks.{level}.0' for ours in ('inner', 'layer') for level in range(4)}
NAMES |= {
  'regions/conv': 'rpn.head.conv.0.0', 'regions/logits': 'rpn.head.cls_logits', 'regions/codes': 'rpn.head.bbox_pred',
  'boxes/fc6': 'roi_heads.box_head.fc6', 'boxes/fc7': 'roi_heads.box_head.fc7',
  'boxes/logits': 'roi_heads.box_predictor.cls_score', 'boxes/codes': 'roi_heads.box_predictor.bbox_pred'}
SAMPLED, EVERY = ('maps', 'objectness', 'aligned'), 7  # how the fixture thins what is large


TASK = make_task('detection', {'box_classes': ['active', 'latent']}, CONFIG)
PIXELS = np.float32([*SIZE, *SIZE])  # of a box of the whole image
IMAGE = np.zeros((BATCH, *SIZE, 1), np.uint8)  # only its shape counts here
GRAPH, SHAPES = nnx.split(nnx.eval_shape(lambda: TASK.make_head(types.SimpleNamespace(widths=WIDTHS), nnx.Rngs(0))))


def draw_leaf(path, leaf):
  """The leaf at `path` from torchvision's weights: kernels turned, codes rows first, regions flattened as ours are."""
  *modules, name = [str(step.key) for step in path]
  module = '/'.join(modules)
  shape = leaf.shape
  torch_shape = shape[::-1] if len(shape) == 2 else torchvision_weights.torch_shape(shape)
  drawn = setting.weight(f'{NAMES[module]}.{torchvision_weights.LEAVES[name]}', torch_shape)
  if module == 'boxes/fc6' and len(shape) == 2:
    drawn = drawn.reshape(-1, CONFIG.width, CELLS, CELLS).transpose(0, 2, 3, 1).reshape(torch_shape)
  if module.endswith('codes'):
    drawn = drawn.reshape(-1, 4, *drawn.shape[1:])[:, [1, 0, 3, 2]].reshape(torch_shape)
  return drawn.T if len(shape) == 2 else torchvision_weights.from_torch(drawn)


PARAMS = jax.tree.map_with_path(draw_leaf, nnx.to_pure_dict(SHAPES))


@jax.jit
def infer(params, features, regions_BR4):
  head = nnx.merge(GRAPH, params)
  maps, anchors_A4, objectness_BA, codes_BA4 = head.look(features, SIZE, CONFIG)
  proposals = propose(objectness_BA, codes_BA4, anchors_A4, split_levels(maps, head.regions), SIZE, CONFIG.rpn_proposals_test,
                      CONFIG.rpn_nms_iou)
  logits, box_codes = head.judge(maps, regions_BR4)
  return {'maps': jnp.concatenate([level.reshape(BATCH, -1) for level in maps], axis=1), 'objectness': objectness_BA,
          'codes': codes_BA4, 'aligned': align(maps[:-1], regions_BR4, CELLS), 'logits': logits, 'box_codes': box_codes,
          'proposals': proposals,
          'found': TASK.predict(TASK.apply(head, features, {'image': IMAGE}, groups=None, rng=None))}


@jax.jit
def compute_losses(params, features, batch):
  def compute(params):
    outputs = TASK.apply(nnx.merge(GRAPH, params), features, batch, groups=1, rng=jax.random.key(0))
    total, count = TASK.loss(outputs, batch)
    return total / count, outputs
  (loss, outputs), gradient = jax.value_and_grad(compute, has_aux=True)(params)
  return loss, outputs, gradient


def run_training(boxes=None, kind=None, rows=(True,) * BATCH):
  padded = setting.targets(5)
  return compute_losses(PARAMS, setting.features(), {
    'image': IMAGE, 'valid': np.array(rows), 'boxes': (padded[0] if boxes is None else boxes) / PIXELS,
    'class_id': padded[1] if kind is None else kind})


@pytest.fixture(scope='module')
def ours():
  return jax.tree.map(np.asarray, infer(PARAMS, setting.features(), setting.regions()))


@pytest.fixture(scope='module')
def trained():
  return run_training()


@pytest.fixture(scope='module')
def recorded():
  with np.load(FIXTURE) as arrays:
    return dict(arrays)


def check_against(theirs, ours, loss, *, thin):
  """`thin`: `theirs` was thinned as the fixture is."""
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


def test_anchors_are_torchvisions_to_the_bit(recorded):
  grids = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
  np.testing.assert_array_equal(make_anchors(SIZE, grids, CONFIG.anchor_sizes, CONFIG.aspect_ratios), recorded['anchors'])


def test_proposals_are_torchvisions(recorded, ours):
  found_BR4, real_BR = ours['proposals']
  for found, real, row in zip(found_BR4, real_BR, range(BATCH), strict=True):
    theirs = recorded[f'proposals {row}']
    assert real[:len(theirs)].all() and not real[len(theirs):].any()
    np.testing.assert_allclose(found[real], theirs, atol=1e-3)


def test_head_is_torchvisions(recorded, ours, trained):
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
    assert recipe[step] == (theirs[f'rpn_pre_nms_top_n_{step}'], theirs[f'rpn_post_nms_top_n_{step}'])
  for ours, name in (('region', 'rpn'), ('box', 'box')):
    assert recipe[f'{ours}_overlap'] == theirs[f'{name}_nms_thresh']
    assert recipe[f'{ours}_match'] == (theirs[f'{name}_bg_iou_thresh'], theirs[f'{name}_fg_iou_thresh'])
    count = theirs[f'{name}_batch_size_per_image']
    assert recipe[f'{ours}_sample'] == (count, count * theirs[f'{name}_positive_fraction'])
  assert (recipe.score, recipe.detections) == (theirs['box_score_thresh'], theirs['box_detections_per_img'])
  anchors = faster_rcnn._default_anchorgen()
  assert recipe.sides == anchors.sizes and {recipe.ratios} == set(anchors.aspect_ratios)


def test_what_lies_in_empty_slots_changes_nothing(trained):
  boxes, kind = setting.targets(5)
  boxes[kind < 0] = (10, 20, 50, 70)
  loss, _, gradient = run_training(boxes=boxes)
  np.testing.assert_array_equal(loss, trained[0])
  jax.tree.map(np.testing.assert_array_equal, gradient, trained[2])


def test_rows_of_padding_change_nothing(trained):
  """The third image's boxes and whether it is there at all: only the latter moves the loss."""
  boxes, kind = setting.targets(5)
  without, *_ = run_training(rows=(True, True, False))
  boxes[2], kind[2] = boxes[0] / 2, kind[0]
  again, *_ = run_training(boxes=boxes, kind=kind, rows=(True, True, False))
  np.testing.assert_array_equal(without, again)
  assert without != trained[0]


def test_images_without_boxes_give_a_finite_loss():
  loss, outputs, gradient = run_training(kind=np.full((BATCH, 5), -1, np.int32))
  assert np.isfinite(loss) and loss > 0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert not outputs['boxes']['target'].any() and outputs['boxes']['counts'].any()


def test_every_part_of_the_head_learns(trained):
  still = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(trained[2])
           if not np.any(leaf)]
  assert not still


def test_a_box_claims_its_best_anchor_and_padding_claims_none():
  ious_MN = jnp.array([[0.1, 0.6, 0.6, 0.0, 0.35], [0.0, 0.8, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
  label_N, box_N = match(ious_MN, jnp.array([True, True, True]), 0.3, 0.7, claim=True)
  assert label_N.tolist() == [0, 1, 1, 0, -1]  # the third by claim; the last box touches nothing and claims nothing
  assert box_N[1] == 1 and box_N[2] == 0
  assert match(ious_MN, jnp.array([True, True, True]), 0.3, 0.7, claim=False)[0].tolist() == [0, 1, -1, 0, -1]
  assert match(ious_MN, jnp.zeros(3, bool), 0.3, 0.7, claim=True)[0].tolist() == [0] * 5


@pytest.mark.parametrize('objects, background, expected', [
  (30, 100, (8, 24)),  # enough of both
  (3, 100, (3, 29)),   # the background fills up
  (30, 10, (8, 10)),   # slots stay empty
  (0, 0, (0, 0))])
def test_samples_hold_what_torchvisions_sampler_would(objects, background, expected):
  label_N = np.full(150, -1)
  label_N[:objects], label_N[40:40 + background] = 1, 0
  index_S, chosen_S = choose(jnp.asarray(label_N), jax.random.key(1), count=32, positives=8)
  taken = np.asarray(index_S)[np.asarray(chosen_S)]
  assert len(set(taken)) == len(taken) == sum(expected) and index_S.shape == (32,)
  assert ((label_N[taken] == 1).sum(), (label_N[taken] == 0).sum()) == expected


def test_anchors_that_do_not_fit_the_pyramid_are_refused():
  config = CONFIG.copy_and_resolve_references()
  config.anchor_sizes = ((32,), (64,))
  with pytest.raises(ValueError, match=r'anchor sides \(\(32,\), \(64,\)\) must be 5 levels of equally many sides'):
    FasterRCNN(WIDTHS, 2, config, rngs=nnx.Rngs(0))


def test_every_candidate_is_as_likely_as_the_others():
  label_N = jnp.repeat(jnp.array([1, 0, -1]), 20)
  draws = jax.vmap(lambda rng: choose(label_N, rng, count=16, positives=4))(jax.random.split(jax.random.key(0), 2000))
  hits = np.bincount(np.asarray(draws[0])[np.asarray(draws[1])], minlength=60) / 2000
  np.testing.assert_allclose(hits, np.repeat([4 / 20, 12 / 20, 0], 20), atol=0.05)  # over four deviations
