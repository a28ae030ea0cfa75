"""Views: torchvision's crops, Gaussian blur, a jitter that standardisation keeps, the same bits for the same step."""

import functools
import types

import cv2
import jax
import numpy as np
import pytest
import scipy.ndimage
from ml_collections import ConfigDict

from mtpret_jax.augment import views
from mtpret_jax.preflight.hlo import list_collectives
from mtpret_jax.runtime.sharding import by_batch, make_mesh
from tests.reference import augment_setting as setting
from tests.reference import draw

STILL = dict(size=24, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, blur=0.0, blur_sigma=(0.1, 2.0),
             jitter=0.0, brightness=0.4, contrast=0.4, rotation=0.0)  # a view is the image itself
LIVELY = STILL | dict(crop_area=(0.2, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5, blur=0.5, jitter=0.8)


def make_views(images, rng, recipe):
  numbers = {name: value for name, value in recipe.items() if name not in ('size', 'rotation')}
  return np.asarray(compiled_view(images, rng, recipe['size'], recipe['rotation'], numbers))[..., 0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def compiled_view(images, rng, size, rotation, numbers):  # one compilation for all recipes of a size
  return views.make_view(images, rng, types.SimpleNamespace(size=size, rotation=rotation, **numbers), 'float32')


def resample(images, box, *, flip=False, sigma=0.0, size=24):
  batch = len(images)
  boxes = np.tile(np.array([box], np.float32), (batch, 1))
  return np.asarray(compiled_resample(images, boxes, np.full(batch, flip), np.full(batch, sigma, np.float32), size))


compiled_resample = jax.jit(views.resample, static_argnums=4)


@pytest.fixture(scope='module')
def images_BHW1():
  """Sixteen smooth grey images, 32 px."""
  coarse = np.random.default_rng(0).integers(0, 256, (16, 4, 4)).astype(np.float32)
  smooth = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC) for image in coarse])
  return smooth.clip(0, 255).astype(np.uint8)[..., None]


def assert_crops_equal(crops):
  image = draw.uniform('image', setting.IMAGE, 0, 1)
  for box, expected in zip(setting.BOXES, crops, strict=True):
    ours = resample(image[None], box, size=setting.SIZE)[0]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5, err_msg=str(box))


def test_resized_crops_equal_torchvisions():
  with np.load(setting.FIXTURE) as recorded:
    assert_crops_equal(recorded['crops'])


@pytest.mark.reference
def test_torchvision_itself_crops_the_same():
  pytest.importorskip('torchvision')
  from tests.reference import augment_torch
  assert_crops_equal(augment_torch.resized_crops())


def draw_crops(batch, rng=0):
  recipe = ConfigDict(LIVELY | dict(crop_area=setting.AREA, crop_ratio=setting.RATIO))
  return np.asarray(views.draw_crops(jax.random.key(rng), batch, setting.SIDE, setting.SIDE, recipe))


def test_crops_have_the_distribution_of_torchvisions():
  ours = np.quantile(setting.describe(draw_crops(20_000)), setting.QUANTILES, axis=1).T
  with np.load(setting.FIXTURE) as recorded:
    for ours_of_one, expected in zip(ours, recorded['quantiles'], strict=True):
      np.testing.assert_allclose(ours_of_one, expected, rtol=0, atol=0.02)  # 5 standard errors of 20,000 draws


def test_crops_stay_inside_the_image():
  top, left, height, width = draw_crops(20_000).T
  assert (top >= 0).all() and (left >= 0).all()
  assert (top + height <= setting.SIDE + 1e-3).all() and (left + width <= setting.SIDE + 1e-3).all()
  assert (height > 0).all() and (width > 0).all()


def test_a_crop_that_cannot_fit_is_the_whole_image():
  recipe = ConfigDict(LIVELY | dict(crop_area=(0.9, 1.0), crop_ratio=(4.0, 5.0)))
  crops = views.draw_crops(jax.random.key(0), 5, 40, 40, recipe)
  np.testing.assert_array_equal(crops, np.tile([0, 0, 40, 40], (5, 1)))


def test_a_still_recipe_shows_the_image_itself(images_BHW1):
  images = images_BHW1[..., 0] / 255
  expected = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
  drawn = make_views(images_BHW1, jax.random.key(0), STILL | dict(size=32))
  np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5)
  plain = views.make_plain(images_BHW1, 32, 'float32')[..., 0]
  np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-5)


def test_a_flip_is_left_for_right(images_BHW1):
  box = (3.2, 1.7, 20.5, 25.1)
  images = images_BHW1[..., 0] / np.float32(255)
  np.testing.assert_allclose(resample(images, box, flip=True), resample(images, box)[:, :, ::-1], atol=1e-6)


def test_half_of_the_views_are_flipped(images_BHW1):
  images = np.tile(images_BHW1[:1], (200, 1, 1, 1))
  views = make_views(images, jax.random.key(0), STILL | dict(flip=0.5))
  plain = make_views(images[:1], jax.random.key(0), STILL)[0]
  flipped = np.abs(views - plain[:, ::-1]).max((1, 2)) < 1e-4
  untouched = np.abs(views - plain).max((1, 2)) < 1e-4
  assert (flipped ^ untouched).all()
  assert flipped.mean() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize('angle', [-30.0, 10.0, 90.0])
def test_a_rotation_is_scipys(angle):
  image = np.random.default_rng(0).random((20, 27), np.float32)
  ours = views.rotate(image, np.radians(angle))
  theirs = scipy.ndimage.rotate(image, angle, reshape=False, order=1, mode='nearest')
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
  if angle == 90:  # counter-clockwise, on a square about the centre
    np.testing.assert_allclose(views.rotate(image[:, :20], np.pi / 2), np.rot90(image[:, :20]), rtol=0, atol=1e-4)


def test_views_are_rotated_by_up_to_the_limit_either_way(images_BHW1):
  """The angle of a bar that was upright, from the second moments of the view."""
  image = np.zeros((33, 33), np.uint8)
  image[2:31, 15:18] = 255
  recipe = STILL | dict(size=33, rotation=15.0)
  drawn = make_views(np.tile(image[None, ..., None], (300, 1, 1, 1)), jax.random.key(0), recipe)
  weight = drawn - drawn.min((1, 2), keepdims=True)
  down, right = np.mgrid[-16:17, -16:17]
  angles = np.degrees(0.5 * np.arctan2(2 * (weight * down * right).sum((1, 2)),
                                       (weight * (down ** 2 - right ** 2)).sum((1, 2))))
  assert np.abs(angles).max() <= 15.5
  np.testing.assert_allclose(np.quantile(angles, [0.1, 0.5, 0.9]), [-12, 0, 12], atol=2)  # uniform


def test_a_rotation_leaves_the_other_random_numbers_as_they_are(images_BHW1):
  tilted = make_views(images_BHW1, jax.random.key(0), LIVELY | dict(rotation=1e-4))
  np.testing.assert_allclose(tilted, make_views(images_BHW1, jax.random.key(0), LIVELY), rtol=0, atol=1e-3)


def test_without_a_rotation_nothing_is_rotated(images_BHW1, monkeypatch):
  monkeypatch.setattr(views, 'rotate', None)
  jax.eval_shape(lambda images: views.make_view(images, jax.random.key(0), ConfigDict(LIVELY), 'float32'), images_BHW1)


def test_each_device_rotates_its_own_images(images_BHW1):
  split = by_batch(make_mesh())
  images, angles = images_BHW1[..., 0] / np.float32(255), np.linspace(-0.5, 0.5, 16, dtype=np.float32)
  rotate = jax.jit(jax.vmap(views.rotate), in_shardings=split, out_shardings=split).lower(images, angles).compile()
  assert not list_collectives(rotate.as_text())
  alone = [views.rotate(image, angle) for image, angle in zip(images, angles, strict=True)]
  np.testing.assert_allclose(rotate(*jax.device_put((images, angles), split)), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize('sigma', [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian(images_BHW1, sigma):
  images = images_BHW1[..., 0] / np.float32(255)
  ours = resample(images, (0, 0, 32, 32), sigma=sigma, size=32)
  reach = int(6 * sigma)
  expected = np.stack([cv2.GaussianBlur(image, (2 * reach + 1, 2 * reach + 1), sigma) for image in images])
  inner = slice(reach, 32 - reach)
  np.testing.assert_allclose(ours[:, inner, inner], expected[:, inner, inner], rtol=0, atol=1e-5)


def test_blur_keeps_the_mean():
  flat = resample(np.full((1, 32, 32), 0.7, np.float32), (0, 0, 32, 32), sigma=2.0, size=32)
  np.testing.assert_allclose(flat, 0.7, atol=1e-6)
  spot = np.zeros((1, 32, 32), np.float32)
  spot[0, 14:18, 14:18] = 1
  assert resample(spot, (0, 0, 32, 32), sigma=2.0, size=32).sum() == pytest.approx(16, rel=1e-4)


def test_no_blur_is_no_change():
  np.testing.assert_array_equal(views.make_blur(0.0, 9), np.eye(9))


def test_standardising_does_not_undo_the_jitter(images_BHW1):
  """Brightness must change the mean of a view, and contrast its standard deviation."""
  images = np.tile(images_BHW1[:1] // 2, (200, 1, 1, 1))  # dark enough not to be clipped
  still = make_views(images, jax.random.key(0), STILL)
  bright = make_views(images, jax.random.key(0), STILL | dict(jitter=1.0, contrast=0.0))
  harsh = make_views(images, jax.random.key(0), STILL | dict(jitter=1.0, brightness=0.0))
  assert np.ptp(still.mean((1, 2))) < 1e-4 and np.ptp(still.std((1, 2))) < 1e-4
  assert np.ptp(bright.mean((1, 2))) > 0.5
  assert np.ptp(harsh.std((1, 2))) > 0.5
  np.testing.assert_allclose(harsh.mean((1, 2)), still.mean((1, 2)), atol=0.05)


def test_jittered_views_stay_within_black_and_white(images_BHW1):
  config = ConfigDict(LIVELY | dict(jitter=1.0))
  jittered = views.jitter_intensity(images_BHW1[..., 0] / 255, jax.random.key(0), config)
  assert jittered.min() >= 0 and jittered.max() <= 1


def test_an_image_of_one_grey_value_gives_finite_views():
  assert np.isfinite(make_views(np.full((4, 32, 32, 1), 7, np.uint8), jax.random.key(0), LIVELY)).all()


def step_rng(seed, step):
  return jax.random.fold_in(jax.random.key(seed), step)  # as in step.py


def test_the_same_seed_and_step_give_the_same_bits(images_BHW1):
  views = make_views(images_BHW1, step_rng(3, 7), LIVELY)
  np.testing.assert_array_equal(make_views(images_BHW1, step_rng(3, 7), LIVELY), views)
  assert (make_views(images_BHW1, step_rng(3, 8), LIVELY) != views).any((1, 2)).all()
  assert (make_views(images_BHW1, step_rng(4, 7), LIVELY) != views).any((1, 2)).all()


def test_images_of_a_batch_get_different_views(images_BHW1):
  views = make_views(np.tile(images_BHW1[:1], (16, 1, 1, 1)), jax.random.key(0), LIVELY)
  assert len(np.unique(views.reshape(16, -1), axis=0)) == 16


def test_views_do_not_depend_on_the_number_of_devices(images_BHW1):
  def view(devices):
    split = by_batch(make_mesh(jax.devices()[:devices]))
    make = jax.jit(lambda images: views.make_view(images, step_rng(0, 5), ConfigDict(LIVELY), 'float32'),
                   in_shardings=split, out_shardings=split)
    return np.asarray(make(images_BHW1))
  np.testing.assert_allclose(view(8), view(1), rtol=0, atol=1e-5)
