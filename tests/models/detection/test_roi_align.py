"""RoIAlign for CPUs computes the same features and the same gradient as the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.cpu.roi_align import CHUNK
from mtpret_jax.models.detection import roi_align
from mtpret_jax.runtime import backend
from mtpret_jax.runtime.sharding import by_batch, make_mesh
from tests.reference import detection_setting as setting
from tests.reference import draw

BATCH, CHANNELS, CELLS = 2, 5, 7


def draw_inputs():
  """(maps, rois_BR4, gradient): RoIs of all four levels, at and beyond every border, empty and thin ones."""
  maps = [draw.normal(f'map {stride}', (BATCH, 256 // stride, 384 // stride, CHANNELS)) for stride in (4, 8, 16, 32)]
  large = np.float32([(0, 0, 256, 384), (10, 20, 250, 300), (-50, 100, 180, 420), (60, 5, 200, 160),
                      (-60, -100, 400, 520), (-10, -20, 480, 440)])
  rois = np.concatenate([setting.rois()[:BATCH], np.tile(large, (BATCH, 1, 1))], axis=1)
  return maps, rois, draw.normal('gradient', (*rois.shape[:2], CELLS, CELLS, CHANNELS))


@functools.cache
def run(plainly, devices=1):
  """[features, gradient of each map]."""
  mesh = make_mesh(jax.devices()[:devices])
  maps, rois, gradient = draw_inputs()

  @functools.partial(jax.jit, in_shardings=by_batch(mesh))
  def pool(maps, rois, gradient):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      features, pull = jax.vjp(lambda maps: roi_align.roi_align(maps, rois, CELLS), maps)
      return [features, *pull(gradient)[0]]
  with backend.default_implementations() if plainly else jax.named_scope('cpu'):
    return pool(maps, rois, gradient)


def test_rois_are_on_all_levels_and_the_last_chunk_is_not_full():
  _, rois, _ = draw_inputs()
  assert set(np.asarray(roi_align.assign_levels(rois)).clip(0).ravel().tolist()) == {0, 1, 2, 3}
  assert rois.shape[0] * rois.shape[1] % CHUNK


@pytest.mark.parametrize('devices', [1, 2])
def test_features_and_gradient_are_those_of_the_plain_formulation(devices):
  for ours, plain in zip(run(False, devices), run(True), strict=True):
    np.testing.assert_allclose(ours, plain, rtol=0, atol=2e-6 * np.abs(plain).max())


def test_devices_keep_their_own_images():
  maps, rois, _ = draw_inputs()
  mesh = make_mesh(jax.devices()[:2])
  pool = jax.jit(lambda *arrays: roi_align.roi_align(*arrays, CELLS), in_shardings=by_batch(mesh))
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    assert 'all-gather' not in pool.lower(maps, rois).compile().as_text()


def test_a_program_for_another_backend_has_the_plain_formulation():
  maps, rois, _ = draw_inputs()

  def lower(platform):
    grad = jax.jit(jax.grad(lambda maps, rois: roi_align.roi_align(maps, rois, CELLS).sum()))
    return jax.export.export(grad, platforms=[platform])(maps, rois).mlir_module()

  assert 'stablehlo.scatter' in lower('cpu')
  for platform in ('tpu', 'cuda'):
    assert 'scatter' not in lower(platform) and 'stablehlo.dot_general' in lower(platform)


def test_bfloat16_features_have_the_precision_of_bfloat16():
  maps, rois, _ = draw_inputs()
  half = jax.jit(lambda *arrays: roi_align.roi_align(*arrays, CELLS))([jnp.asarray(level, jnp.bfloat16)
                                                                      for level in maps], rois)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(np.float32), run(False)[0], atol=0.03)
