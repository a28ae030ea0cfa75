"""Views with labels: image, mask and boxes move together, as torchvision moves them."""

import functools
import types

import jax
import numpy as np
import pytest

from configs import common
from mtpret_jax.augment import labelled, views
from tests.reference import augment_labelled_setting as setting

SIDE = 128
STILL = dict(size=SIDE, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, brightness=0.3,
             contrast=0.3, min_visibility=0.3)  # a view is the image itself
LIVELY = STILL | dict(crop_area=(0.3, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5)


def make_view(batch, recipe, rng=0):
  numbers = {name: value for name, value in recipe.items() if name != 'size'}
  return jax.device_get(compiled_view(batch, jax.random.key(rng), recipe['size'], numbers))


@functools.partial(jax.jit, static_argnums=2)
def compiled_view(batch, rng, size, numbers):  # one compilation for all recipes of a size
  return labelled.make_labelled_view(batch, rng, types.SimpleNamespace(size=size, **numbers), 'float32')


@functools.partial(jax.jit, static_argnums=1)
def compiled_plain(batch, size):
  return labelled.make_labelled_plain(batch, size, 'float32')


compiled_boxes = jax.jit(labelled.move_boxes, static_argnums=4)


def standardise(images_BHW1):
  images = images_BHW1 / 255
  return (images - images.mean((1, 2, 3), keepdims=True)) / images.std((1, 2, 3), keepdims=True)


def draw_discs(count=24):
  """White discs on black with smooth rims, as image, mask and box; the second box slot is empty."""
  stream = np.random.default_rng(0)
  radius = stream.uniform(24, 40, count)
  centre = stream.uniform(radius + 1, SIDE - 1 - radius, (2, count)).T
  at = np.arange(SIDE) + 0.5
  distance = np.hypot(at[None, :, None] - centre[:, 0, None, None], at[None, None] - centre[:, 1, None, None])
  inside = np.clip(radius[:, None, None] - distance + 0.5, 0, 1)
  box = np.concatenate([centre - radius[:, None], centre + radius[:, None]], axis=1) / SIDE
  return {
    'image': np.rint(255 * inside).astype(np.uint8)[..., None], 'mask': (inside > 0.5).astype(np.int8),
    'boxes': np.stack([box, np.full_like(box, 0.25)], axis=1).astype(np.float32),
    'class_id': np.tile(np.int32([[2, -1]]), (count, 1)), 'present': stream.uniform(size=(count, 3)).astype(np.float32)}


def find_white(view, batch):
  """(B, H, W) bool: where the standardised views are closer to white than to black."""
  images = batch['image'][..., 0] / 255
  black, white = ((level - images.mean((1, 2))) / images.std((1, 2)) for level in (0, 1))
  return view['image'][..., 0] > ((black + white) / 2)[:, None, None]


def find_extent(mask):
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def test_mask_and_box_are_where_the_disc_is():
  batch = draw_discs()
  view = make_view(batch, LIVELY)
  seen, marked = find_white(view, batch), view['mask'] == 1
  large = marked.sum((1, 2)) > 1600
  overlap = (seen & marked).sum((1, 2)) / (seen | marked).sum((1, 2))
  assert large.sum() > 18 and (overlap[large] >= 0.98).all()
  for index in np.flatnonzero(large & (view['class_id'][:, 0] == 2)):
    np.testing.assert_allclose(view['boxes'][index, 0] * SIDE, find_extent(seen[index]), rtol=0, atol=1)
  assert set(np.unique(view['mask'])) == {0, 1}
  whole = batch['mask'].sum((1, 2))
  assert (whole / marked.sum((1, 2)).clip(1) < 0.9).any(), 'some views are enlarged'
  assert (find_extent(marked[0]) != find_extent(batch['mask'][0])).any()


def test_a_still_recipe_changes_neither_mask_nor_boxes():
  batch = draw_discs()
  view = make_view(batch, STILL)
  np.testing.assert_array_equal(view['mask'], batch['mask'])
  np.testing.assert_array_equal(view['class_id'], batch['class_id'])
  np.testing.assert_allclose(view['boxes'][:, 0], batch['boxes'][:, 0], atol=1e-6)
  np.testing.assert_allclose(view['image'], standardise(batch['image']), atol=1e-4)


def test_flip_moves_mask_and_boxes_with_the_image():
  batch = draw_discs()
  view = make_view(batch, STILL | dict(flip=1.0))
  np.testing.assert_allclose(view['image'], standardise(batch['image'])[:, :, ::-1], atol=1e-4)
  np.testing.assert_array_equal(view['mask'], batch['mask'][:, :, ::-1])
  for box, mask in zip(view['boxes'][:, 0], batch['mask'], strict=True):
    np.testing.assert_allclose(box * SIDE, find_extent(mask[:, ::-1]), rtol=0, atol=1)


def test_labels_of_the_whole_image_do_not_change():
  batch = draw_discs()
  np.testing.assert_array_equal(make_view(batch, LIVELY)['present'], batch['present'])


@functools.partial(jax.jit, static_argnums=3)
def compiled_sides(batch, rng, flip, mirror):
  recipe = types.SimpleNamespace(**STILL | {'flip': flip})
  return labelled.make_labelled_view(batch, rng, recipe, 'float32', mirror)


def test_in_a_flipped_image_the_labels_of_the_two_sides_are_swapped():
  """Classes 1 and 2 are left and right; the other ones have no side."""
  images = np.zeros((16, SIDE, SIDE, 1), np.uint8)
  images[:, :, :SIDE // 2] = 255  # a flip shows
  mask = np.tile(np.repeat(np.int8([-1, 0, 1, 2]), SIDE // 4), (16, SIDE, 1))
  stream = np.random.default_rng(0)
  batch = {'image': images, 'mask': mask, 'boxes': np.tile(np.float32([0, 0, 0.5, 0.5]), (16, 4, 1)),
           'class_id': np.tile(np.int32([1, 2, 0, -1]), (16, 1)),
           'present': stream.integers(0, 2, (16, 3)).astype(np.float32),
           'label_mask': stream.integers(0, 2, (16, 3)).astype(bool)}
  view = jax.device_get(compiled_sides(batch, jax.random.key(1), 0.5, (0, 2, 1)))
  flipped = view['image'][:, 0, 0, 0] < view['image'][:, 0, -1, 0]
  assert 0 < flipped.sum() < 16
  swap = np.int32([0, 2, 1, -1])  # by class, -1 last
  assert np.array_equal(view['mask'], np.where(flipped[:, None, None], swap[mask[:, :, ::-1]], mask))
  assert np.array_equal(view['class_id'], np.where(flipped[:, None], swap[batch['class_id']], batch['class_id']))
  for field in ('present', 'label_mask'):
    assert np.array_equal(view[field], np.where(flipped[:, None], batch[field][:, [0, 2, 1]], batch[field]))


def test_empty_slots_stay_empty():
  view = make_view(draw_discs(), LIVELY)
  assert (view['class_id'][:, 1] == -1).all() and (view['boxes'][:, 1] == 0).all()


def test_a_box_is_dropped_if_too_little_of_it_is_visible():
  x0 = np.array([0.5, 0.3, 0.1, 0.0, 0.5])
  boxes = np.stack([np.full(5, 0.4), x0, np.full(5, 0.6), x0 + 0.5], axis=1).astype(np.float32)[None]
  class_id = np.int32([[0, 1, 2, 3, -1]])
  crop = np.float32([[0, 20, 30, 20]])  # the right half: 5/5, 3/5, 1/5 and nothing of the boxes are visible
  moved, left = compiled_boxes(boxes, class_id, crop, np.array([False]), (30, 40), 0.3)
  np.testing.assert_array_equal(left, [[0, 1, -1, -1, -1]])
  np.testing.assert_allclose(moved[0, :2], [[0.4, 0, 0.6, 1], [0.4, 0, 0.6, 0.6]], atol=1e-6)
  assert not np.any(moved[0, 2:])
  _, left = compiled_boxes(boxes, class_id, crop, np.array([True]), (30, 40), 0.1)
  np.testing.assert_array_equal(left, [[0, 1, 2, -1, -1]])
  _, left = compiled_boxes(boxes, class_id, crop, np.array([True]), (30, 40), 0.0)
  np.testing.assert_array_equal(left, [[0, 1, 2, -1, -1]])


def test_unannotated_pixels_stay_unannotated_and_no_class_appears():
  batch = draw_discs()
  blocks = np.random.default_rng(1).choice(np.int8([-1, 0, 5, 127]), (24, 16, 16))
  batch['mask'] = np.kron(blocks, np.ones((1, 8, 8), np.int8))
  batch['mask'][0] = -1
  moved = make_view(batch, LIVELY)['mask']
  assert set(np.unique(moved)) == {-1, 0, 5, 127} and (moved[0] == -1).all() and moved.dtype == np.int32


def test_jitter_changes_the_image_only():
  batch = draw_discs()
  batch['image'] //= 2  # dark enough not to be clipped
  still, jittered = make_view(batch, LIVELY), make_view(batch, LIVELY | dict(jitter=1.0))
  assert (np.abs(still['image'] - jittered['image']).max((1, 2, 3)) > 0.01).mean() > 0.9
  for field in ('mask', 'boxes', 'class_id'):
    np.testing.assert_array_equal(still[field], jittered[field])


def test_evaluation_sees_the_whole_image_and_all_boxes():
  batch = draw_discs()
  plain = jax.device_get(compiled_plain(batch, 2 * SIDE))
  assert plain['image'].shape == (len(batch['image']), 2 * SIDE, 2 * SIDE, 1)
  np.testing.assert_array_equal(plain['mask'], np.kron(batch['mask'], np.ones((1, 2, 2))))
  np.testing.assert_array_equal(plain['boxes'], batch['boxes'])
  np.testing.assert_array_equal(plain['class_id'], batch['class_id'])
  marked, seen = plain['mask'] == 1, find_white(plain, batch)
  assert ((seen & marked).sum((1, 2)) / (seen | marked).sum((1, 2)) >= 0.98).all()


def test_the_configured_recipe_has_all_fields():
  batch = draw_discs()
  view = make_view(batch, dict(common.labelled_augment(SIDE)))
  assert np.isfinite(view['image']).all() and (view['class_id'][:, 0] == 2).all()
  seen, whole = (each['mask'].sum((1, 2)) for each in (view, batch))
  assert (seen > 0.9 * whole).mean() > 0.8, 'most of the mask stays visible'


@jax.jit
def move_all(image, mask, boxes, class_id, crop, flip):
  rows, columns = views.make_matrices(crop, flip, setting.IMAGE, setting.SIZE)
  return (views.apply_matrices(rows, image, columns), labelled.move_mask(mask, crop, flip, setting.SIZE),
          *labelled.move_boxes(boxes, class_id, crop, flip, setting.IMAGE, 0.0))


def assert_moved_as(expected):
  crop = np.float32([crop for crop, _ in setting.VIEWS])
  flip = np.array([flip for _, flip in setting.VIEWS])
  each = (setting.make_image() / np.float32(255), setting.make_mask(), setting.make_boxes(), np.arange(5))
  image, mask, boxes, class_id = move_all(*(np.stack([array] * len(crop)) for array in each), crop, flip)
  np.testing.assert_allclose(image, expected['image'], rtol=0, atol=1e-5)
  np.testing.assert_array_equal(mask, expected['mask'])
  sides = expected['boxes'][..., 2:] - expected['boxes'][..., :2]
  some = sides.min(-1) > 1e-6
  assert some.any() and not some.all()
  np.testing.assert_array_equal(class_id, np.where(some, np.arange(5)[None], -1))
  np.testing.assert_allclose(boxes, np.where(some[..., None], expected['boxes'], 0), rtol=0, atol=1e-6)


def test_image_mask_and_boxes_move_as_torchvision_moves_them():
  with np.load(setting.FIXTURE) as recorded:
    assert_moved_as(recorded)


@pytest.mark.reference
def test_torchvision_itself_moves_them_the_same():
  pytest.importorskip('torchvision')
  from tests.reference import augment_labelled_torch
  assert_moved_as(augment_labelled_torch.move_all())
