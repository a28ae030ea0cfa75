"""The two formulations of the max pool have the same result and gradient, and each backend gets its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.models.pool import pool_max, pool_pairs, pool_windows


@pytest.fixture(params=[(2, 12, 10, 3), (2, 7, 9, 3)], ids=['even', 'odd'])
def images_BHWC(request):
  """Not negative, as after ReLU; in most windows several pixels are the largest."""
  return np.maximum(np.random.default_rng(0).integers(-4, 4, request.param), 0).astype(np.float32)


def pool_plainly(images_BHWC, weights_BhwC):
  """Window by window: (maxima, gradient of their weighted sum). The first of equal pixels gets the gradient."""
  padded = np.pad(images_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
  out, gradient = np.zeros_like(weights_BhwC), np.zeros_like(padded)
  for b, i, j, c in np.ndindex(*weights_BhwC.shape):
    window = padded[b, 2 * i:2 * i + 3, 2 * j:2 * j + 3, c]
    row, column = np.unravel_index(window.argmax(), window.shape)
    out[b, i, j, c] = window[row, column]
    gradient[b, 2 * i + row, 2 * j + column, c] += weights_BhwC[b, i, j, c]
  return out, gradient[:, 1:-1, 1:-1]


@pytest.mark.parametrize('pool', [pool_windows, pool_pairs])
def test_the_first_of_equal_largest_pixels_gets_the_gradient(pool, images_BHWC):
  out, pull = jax.vjp(pool, jnp.asarray(images_BHWC))
  weights = np.random.default_rng(1).normal(size=out.shape).astype(np.float32)
  expected, gradient = pool_plainly(images_BHWC, weights)
  np.testing.assert_array_equal(out, expected)
  np.testing.assert_allclose(pull(jnp.asarray(weights))[0], gradient, rtol=0, atol=1e-6)


def test_nan_is_not_hidden(images_BHWC):
  images_BHWC[0, 4, 4, 0] = np.nan
  assert np.isnan(pool_pairs(jnp.asarray(images_BHWC))[0, 2, 2, 0])


def test_the_backward_pass_does_not_compare_images(images_BHWC):
  """XLA may recompute them there with another rounding; then no pixel equals the maximum of its window."""
  _, pull = jax.vjp(pool_pairs, jnp.asarray(images_BHWC))
  saved = [array for array in jax.tree.leaves(pull) if array.size > 1]
  assert saved and all(array.dtype == jnp.int8 for array in saved)


@pytest.mark.parametrize('platform, windows', [('tpu', True), ('cpu', False), ('cuda', False)])
def test_only_a_tpu_pools_by_windows(platform, windows):
  grad = jax.jit(jax.grad(lambda images: pool_max(images).sum()))
  lowered = jax.export.export(grad, platforms=[platform])(jnp.zeros((2, 12, 10, 3))).mlir_module()
  assert ('select_and_scatter' in lowered) == windows
