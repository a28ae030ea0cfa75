"""The queue is a ring that any batch may fill, and what the measures of a batch say about its embeddings."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.objectives.moco import enqueue, rate_batch

BATCH = 4


@pytest.mark.parametrize('places', [8, 10, 6, 5, 4])
def test_the_oldest_keys_are_replaced_also_where_a_batch_wraps_around(places):
  queue = {'queue': jnp.full((places, 1), -1.0), 'queue_source': jnp.full(places, -1)}
  expected, pointer = np.full(places, -1.0), 0
  for step in range(2 * places):
    keys = np.arange(BATCH, dtype=np.float32) + step * BATCH
    queue = enqueue(queue, keys[:, None], {'source': jnp.asarray(keys, jnp.int32)}, jnp.int32(step))
    for key in keys:  # one by one, as with a pointer
      expected[pointer] = key
      pointer = (pointer + 1) % places
    np.testing.assert_array_equal(queue['queue'][:, 0], expected)
    np.testing.assert_array_equal(queue['queue_source'], expected)


@pytest.mark.parametrize('places', [8, 10])
def test_the_place_does_not_overflow_in_long_runs(places):
  step, keys = 2**31 - 1, jnp.ones((BATCH, 1))
  queue = enqueue({'queue': jnp.zeros((places, 1)), 'queue_source': jnp.zeros(places, jnp.int32)}, keys,
                  {'source': jnp.ones(BATCH, jnp.int32)}, jnp.int32(step))
  start = step * BATCH % places
  assert set(np.flatnonzero(queue['queue'][:, 0])) == {(start + index) % places for index in range(BATCH)}


@pytest.mark.parametrize('embeddings, uniformity', [
  ([[1.0, 0.0], [1.0, 0.0]], 0.0), ([[1.0, 0.0], [-1.0, 0.0]], -8.0), ([[1.0, 0.0], [0.0, 1.0]], -4.0)])
def test_uniformity_is_0_for_a_collapse_and_low_for_embeddings_that_are_far_apart(embeddings, uniformity):
  z_BD = jnp.array(embeddings)
  positive_B1 = jnp.ones((2, 1))
  measures = rate_batch(z_BD, z_BD, positive_B1, {'source': jnp.zeros(2, jnp.int32)})
  assert measures['uniformity'] == pytest.approx(uniformity, abs=1e-6)
  assert measures['accuracy_batch'] == (uniformity < 0)
