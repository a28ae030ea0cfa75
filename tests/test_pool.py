"""The two formulations of the stem's pool are one function, and each backend gets its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.models.resnet import pool_max, pool_shifted, pool_windows


@pytest.fixture
def images_BHWC():
  """As after ReLU, and no two positive values are equal."""
  values = np.random.default_rng(0).permutation(2 * 12 * 10 * 3).reshape(2, 12, 10, 3) - 360
  return np.maximum(values, 0).astype(np.float32)


def pull(pool, images_BHWC):
  """(the pooled images, the gradient of a loss that weighs each of their pixels differently)."""
  out, gradient = jax.vjp(pool, images_BHWC)
  weights = np.random.default_rng(1).normal(size=out.shape).astype(np.float32)
  return out, np.where(images_BHWC > 0, gradient(jnp.asarray(weights))[0], 0)  # ReLU stops what falls on zeros


def test_windows_and_shifted_slices_are_the_same_pool(images_BHWC):
  for one, other in zip(pull(pool_windows, images_BHWC), pull(pool_shifted, images_BHWC), strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_the_pool_takes_the_largest_of_each_window(images_BHWC):
  padded = np.pad(images_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = [[padded[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3].max((1, 2)) for j in range(5)] for i in range(6)]
  np.testing.assert_array_equal(pool_max(images_BHWC), np.asarray(expected).transpose(2, 0, 1, 3))


@pytest.mark.parametrize('platform, windows', [('tpu', True), ('cpu', False), ('cuda', False)])
def test_only_a_tpu_pools_by_windows(platform, windows, images_BHWC):
  grad = jax.jit(jax.grad(lambda images: pool_max(images).sum()))
  lowered = jax.export.export(grad, platforms=[platform])(images_BHWC).mlir_module()
  assert ('select_and_scatter' in lowered) == windows
