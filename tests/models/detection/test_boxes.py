"""Box geometry equals torchvision's up to the order of coordinates; `tests/reference/boxes_torch.py` recorded it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.models.detection import boxes
from tests.reference import boxes_setting as setting
from tests.reference import draw
from tests.reference.boxes_setting import swap

nms = jax.jit(boxes.nms, static_argnums=2)


def our_numbers():
  """The arrays of `boxes_torch.record`, by the same names, in torchvision's order of coordinates."""
  some, anchors = (jnp.asarray(setting.random_boxes(name, 40)) for name in ('boxes', 'anchors'))
  deltas = swap(draw.normal('codes', (40, 4)))
  kept = {'iou': boxes.compute_ious(some, anchors), 'clipped': swap(boxes.clip(some, (60, 80)))}
  for weights in setting.WEIGHTS:
    kept[f'code {weights}'] = swap(boxes.encode(some, anchors, weights))
    kept[f'decoded {weights}'] = swap(boxes.decode(deltas * 3, anchors, weights))
  for name, (case, scores, classes) in setting.cases().items():
    for threshold in setting.THRESHOLDS:
      kept[f'nms {name} {threshold}'] = in_order(scores, nms(case, scores, threshold))
      alone = jnp.where(classes[None] == jnp.arange(3)[:, None], scores[None], -jnp.inf)
      keep = jax.vmap(lambda row, case=case, t=threshold: nms(case, row, t))(alone).any(0)
      kept[f'batched {name} {threshold}'] = in_order(scores, keep)
  return kept


def in_order(scores, keep):
  """Indices of the kept boxes, best first; of equal scores the first comes first."""
  order = np.argsort(-scores, kind='stable')
  return order[np.asarray(keep)[order]]


@pytest.fixture(scope='module')
def ours():
  return our_numbers()


def compare(ours, theirs):
  assert set(ours) == set(theirs)
  for name, expected in theirs.items():
    if 'nms' in name or 'batched' in name:
      np.testing.assert_array_equal(ours[name], expected, err_msg=name)
    else:
      np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_boxes_deltas_and_nms_equal_torchvisions(ours):
  with np.load(setting.FIXTURE) as recorded:
    compare(ours, dict(recorded))


@pytest.mark.reference
def test_torchvision_itself_gives_the_same(ours):
  pytest.importorskip('torchvision')
  from tests.reference import boxes_torch
  compare(ours, boxes_torch.record())


def test_the_tied_case_has_ious_at_every_threshold():
  case, *_ = setting.cases()['tied']
  iou = np.asarray(boxes.compute_ious(case, case))
  for threshold in setting.THRESHOLDS:
    assert (np.abs(iou - threshold) < 1e-6).any()


def test_a_box_is_kept_if_its_rival_is_suppressed():
  row = np.array([[0, start, 1, start + 10] for start in range(0, 24, 4)], np.float32)  # neighbours: IoU 3 / 7
  keep = nms(row, np.array([6, 5, 4, 3, 2, 1], np.float32), 0.4)
  assert keep.tolist() == [True, False] * 3


def test_empty_slots_are_not_kept_and_suppress_nothing():
  case, scores, _ = setting.cases()['random']
  more = np.concatenate([case, case[:50] + 1]), np.concatenate([scores, np.full(50, -np.inf, np.float32)])
  keep = np.asarray(nms(*more, 0.5))
  assert not keep[300:].any()
  np.testing.assert_array_equal(keep[:300], nms(case, scores, 0.5))


def test_a_sharded_batch_is_not_gathered():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))

  @functools.partial(jax.jit, in_shardings=split, out_shardings=split)
  def keep_best(case_BN4, scores_BN):
    keep_BN = jax.vmap(lambda case, scores: boxes.nms(case, scores, 0.5))(case_BN4, scores_BN)
    return boxes.top_k(jnp.where(keep_BN, scores_BN, -jnp.inf), 5)

  case, scores, _ = setting.cases()['random']
  batch = np.stack([case] * 8), np.stack([np.roll(scores, row) for row in range(8)])
  assert 'all-gather' not in keep_best.lower(*batch).compile().as_text()
  best, index = keep_best(*batch)
  for row in range(8):
    first = in_order(batch[1][row], nms(case, batch[1][row], 0.5))[:5]
    np.testing.assert_array_equal(index[row], first)
    np.testing.assert_array_equal(best[row], batch[1][row][first])


def test_decode_undoes_encode():
  some, anchors = (setting.random_boxes(name, 9) for name in ('boxes', 'anchors'))
  back = boxes.decode(boxes.encode(some, anchors, setting.WEIGHTS[1]), anchors, setting.WEIGHTS[1])
  np.testing.assert_allclose(back, some, atol=1e-4)


def test_empty_boxes_have_no_iou():
  empty = jnp.array([[3.0, 3, 3, 3], [0, 0, 0, 0]])
  np.testing.assert_array_equal(boxes.compute_ious(empty, jnp.concatenate([empty, jnp.array([[0.0, 0, 9, 9]])])), 0)
