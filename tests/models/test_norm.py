"""Batch norm over groups does what each device would do with its own rows, without communication."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from mtpret_jax.data.shuffle_bn import shuffle_keys, unshuffle_keys
from mtpret_jax.models.norm import BatchNorm
from mtpret_jax.models.pool import pool_mean
from mtpret_jax.models.resnet import LAYERS, BasicBlock, ResNet
from mtpret_jax.runtime.sharding import by_batch, make_mesh

COLLECTIVE = re.compile(r' (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(')


@pytest.fixture
def norm():
  """Five channels; no parameter has its initial value."""
  norm = BatchNorm(5)
  norm.scale[...], norm.bias[...] = np.linspace(0.5, 1.5, 5), np.linspace(-1, 1, 5)
  norm.mean[...], norm.var[...] = np.linspace(-2, 2, 5), np.linspace(0.2, 3, 5)
  return norm


@pytest.fixture
def images_BHWC():
  stream = np.random.default_rng(0)
  return (stream.normal(size=(12, 3, 4, 5)) * stream.uniform(1, 4, (12, 1, 1, 1)) + np.arange(5)).astype(np.float32)


@pytest.mark.parametrize('groups', [1, 3, 4])
def test_each_group_is_normalised_by_its_own_rows(norm, images_BHWC, groups):
  out = norm(images_BHWC, groups=groups)
  for rows, ours in zip(np.split(images_BHWC, groups), np.split(np.asarray(out), groups), strict=True):
    mean, var = rows.mean((0, 1, 2)), rows.var((0, 1, 2))
    expected = (rows - mean) / np.sqrt(var + 1e-5) * np.linspace(0.5, 1.5, 5) + np.linspace(-1, 1, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('groups', [1, 3, 4])
def test_running_statistics_move_a_tenth_toward_the_mean_over_groups(norm, images_BHWC, groups):
  norm(images_BHWC, groups=groups)
  parts = np.split(images_BHWC, groups)
  mean = np.mean([part.mean((0, 1, 2)) for part in parts], axis=0)
  var = np.mean([part.var((0, 1, 2), ddof=1) for part in parts], axis=0)
  np.testing.assert_allclose(norm.mean[...], 0.9 * np.linspace(-2, 2, 5) + 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(norm.var[...], 0.9 * np.linspace(0.2, 3, 5) + 0.1 * var, rtol=1e-5)


def test_inference_uses_and_keeps_the_running_statistics(norm, images_BHWC):
  out = norm(images_BHWC, groups=None)
  expected = (images_BHWC - np.linspace(-2, 2, 5)) / np.sqrt(np.linspace(0.2, 3, 5) + 1e-5)
  np.testing.assert_allclose(out, expected * np.linspace(0.5, 1.5, 5) + np.linspace(-1, 1, 5), rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(norm.mean[...], np.linspace(-2, 2, 5, dtype=np.float32))


def test_a_mean_far_beyond_the_standard_deviation_costs_no_digits(norm):
  images = np.random.default_rng(1).normal(1000, 0.1, (8, 3, 4, 5)).astype(np.float32)
  norm.mean[...] = np.full(5, 1000, np.float32)  # as after some steps
  exact = images.astype(np.float64)
  expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
  ours = (np.asarray(norm(images, groups=1)) - np.linspace(-1, 1, 5)) / np.linspace(0.5, 1.5, 5)
  np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3)


def make_pure(module):
  """(images, groups) -> the output of the module. New running statistics are discarded."""
  graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
  states = [nnx.to_pure_dict(state) for state in states]
  return lambda images, groups: nnx.merge(graph, *states)(images, groups=groups)


def count_collectives(groups):
  """Collectives on eight devices in the forward and backward pass of one batch norm over 16 rows."""
  apply_norm = make_pure(BatchNorm(5))
  split = by_batch(make_mesh())

  def apply(images_BHWC, gradient_BHWC):
    out, pull = jax.vjp(lambda images: apply_norm(images, groups), images_BHWC)
    return out, pull(gradient_BHWC)

  images = jax.ShapeDtypeStruct((16, 4, 4, 5), np.float32)
  compiled = jax.jit(apply, in_shardings=(split, split), out_shardings=split).lower(images, images).compile()
  return len(COLLECTIVE.findall(compiled.as_text()))


def test_groups_inside_devices_need_no_collective():
  assert jax.device_count() == 8
  assert count_collectives(groups=8) == 0
  assert count_collectives(groups=16) == 0
  assert count_collectives(groups=1) > 0


@pytest.fixture(scope='module')
def embed():
  """(images, groups) -> features of a small random trunk with batch norm over groups."""
  LAYERS['shallow'] = (BasicBlock, (1, 1, 0, 0))
  trunk = make_pure(ResNet('shallow', rngs=nnx.Rngs(0)))
  del LAYERS['shallow']
  return jax.jit(lambda images, groups: pool_mean(trunk(images, groups)[-1]), static_argnums=1)


def retrieve_by_statistics(embed, shuffle_groups):
  """How often a query's nearest key is its own, where only batch-norm statistics can tell the keys apart.

  All images have the same frame and independent noise, also between the query and the key of one image. One image of
  each group is bright in both views, by a random amount. The brighter it is, the fainter batch norm makes the frames of
  the other images in its group. Bright images are trivially found, so only the others count.

  Returns the rate of hits, the rate of a random guess, and the standard error of the latter.
  """
  group, groups, batches, side = 4, 4, 40, 16
  stream = np.random.default_rng(0)
  frame = stream.normal(size=(side, side, 1)).astype(np.float32)
  hits = []
  for _ in range(batches):
    bright_B = np.zeros(group * groups)
    places = np.arange(groups) * group + stream.integers(0, group, groups)
    bright_B[places] = stream.uniform(1, 10, groups)
    views = np.tile(frame, (2, len(bright_B), 1, 1, 1))
    views[:, :, 4:-4, 4:-4] = 0.1 * stream.normal(size=(2, len(bright_B), side - 8, side - 8, 1))
    views[:, :, 4:-4, 4:-4] += bright_B[:, None, None, None]
    query_BC = np.asarray(embed(views[0], groups))
    key_BC = embed(shuffle_keys(views[1], group, shuffle_groups), groups)
    key_BC = np.asarray(unshuffle_keys(key_BC, group, shuffle_groups))
    dim = bright_B == 0
    distance = np.linalg.norm(query_BC[dim][:, None] - key_BC[dim][None], axis=-1)
    hits += list(distance.argmin(1) == np.arange(dim.sum()))
  chance = 1 / (groups * (group - 1))
  return np.mean(hits), chance, np.sqrt(chance * (1 - chance) / len(hits))


def test_statistics_reveal_the_positive_unless_keys_are_shuffled(embed):
  leaked, chance, error = retrieve_by_statistics(embed, shuffle_groups=1)
  hidden, _, _ = retrieve_by_statistics(embed, shuffle_groups=4)
  print(f'own key found in {leaked:.3f} without and {hidden:.3f} with the shuffle; chance {chance:.3f} +- {error:.3f}')
  assert leaked > 2 * chance, 'the test detects a leak'
  assert hidden < chance + 3 * error
