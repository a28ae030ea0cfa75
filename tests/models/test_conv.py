"""The formulations for CPUs compute the same convolution and the same two gradients as the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.cpu import winograd
from mtpret_jax.models.conv import convolve, convolve_plainly
from mtpret_jax.runtime.sharding import by_batch, make_mesh, replicated

# name: images' (B, H, W, C), kernel's (size, D), stride, dilation
CASES = {
  'stem': ((4, 16, 32, 1), (7, 5), 2, 1),
  '3 x 3': ((2, 10, 6, 5), (3, 7), 1, 1),
  '3 x 3 at stride 2': ((2, 10, 6, 5), (3, 7), 2, 1),
  '3 x 3 at stride 2 of an odd map': ((2, 11, 7, 5), (3, 4), 2, 1),
  '3 x 3 with dilation': ((2, 10, 6, 5), (3, 7), 1, 2),
  '3 x 3 with dilation of an odd map': ((2, 11, 7, 5), (3, 7), 1, 2),
  '3 x 3 with a large dilation': ((2, 10, 6, 5), (3, 7), 1, 3),
  '3 x 3 with dilation by Winograd': ((6, 32, 24, 64), (3, 66), 1, 2),
  '3 x 3 by Winograd': ((12, 32, 24, 64), (3, 66), 1, 1),
  '3 x 3 by Winograd, the kernel gradient too': ((3, 20, 18, 130), (3, 128), 1, 1),
  '3 x 3 by Winograd with more channels than tiles': ((8, 8, 4, 258), (3, 260), 1, 1),
  'down to 2 x 2': ((3, 4, 4, 5), (3, 7), 2, 1),
  '3 x 3 of 2 x 2': ((4, 2, 2, 5), (3, 7), 1, 1),
  '3 x 3 of 4 x 3': ((4, 4, 3, 5), (3, 7), 1, 1),
  '3 x 3 of 7 x 5': ((2, 7, 5, 4), (3, 6), 1, 1),
  'down to 5 x 3': ((2, 10, 6, 4), (3, 6), 2, 1),
  'down to 4 x 2': ((2, 8, 4, 5), (3, 7), 2, 1),
  'down to 2 x 2, odd': ((2, 3, 3, 5), (3, 7), 2, 1),
  '7 x 7 of 2 x 1': ((4, 2, 1, 5), (7, 7), 1, 1),
  '3 x 3 of 4 x 4 with dilation': ((2, 4, 4, 5), (3, 7), 1, 3),
  '1 x 1': ((3, 6, 4, 5), (1, 7), 1, 1),
  '1 x 1 at stride 2': ((3, 7, 5, 4), (1, 6), 2, 1),
}


@functools.cache
def run_case(way, name, devices=1):
  mesh = make_mesh(jax.devices()[:devices])
  (shape, (size, out), stride, dilation), rng = CASES[name], np.random.default_rng(0)
  images, kernel = (jnp.asarray(rng.normal(size=sides), jnp.float32)
                    for sides in (shape, (size, size, shape[-1], out)))

  @functools.partial(jax.jit, in_shardings=(by_batch(mesh), replicated(mesh)))
  def run(images, kernel):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      result, pull = jax.vjp(lambda *both: way(*both, stride, dilation), images, kernel)
      return result, *pull(jnp.cos(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape))
  return run(images, kernel)


@pytest.mark.parametrize('name', CASES)
def test_result_and_gradients_are_those_of_the_plain_convolution(name):
  for ours, plain in zip(run_case(convolve, name), run_case(convolve_plainly, name), strict=True):
    np.testing.assert_allclose(ours, plain, rtol=0, atol=3e-6 * np.abs(plain).max())


@pytest.mark.parametrize('name', [name for name, (shape, *_) in CASES.items() if shape[0] % 2 == 0])
def test_devices_that_share_a_batch_compute_the_same(name):
  for shared, alone in zip(run_case(convolve, name, devices=2), run_case(convolve_plainly, name), strict=True):
    np.testing.assert_allclose(shared, alone, rtol=0, atol=3e-6 * np.abs(alone).max())


def test_each_device_uses_winograd_for_its_own_images(monkeypatch):
  shapes = []
  run = winograd.run
  monkeypatch.setattr(winograd, 'run', lambda product, images, kernel: shapes.append(images.shape) or run(
    product, images, kernel))
  run_case.__wrapped__(convolve, '3 x 3 by Winograd', devices=2)
  assert shapes == [(6, 32, 24, 64), (6, 32, 24, 66)]


def test_the_cases_by_winograd_use_it(monkeypatch):
  calls = []
  for name in ('run', 'kernel_gradient'):
    function = getattr(winograd, name)
    monkeypatch.setattr(winograd, name, lambda *all, function=function, name=name: calls.append(name) or function(*all))
  for name in CASES:
    run_case.__wrapped__(convolve, name)
  assert sorted(calls) == ['kernel_gradient'] * 2 + ['run'] * 8


@pytest.mark.parametrize('name', ('3 x 3 by Winograd', 'down to 2 x 2'))
def test_a_program_for_another_backend_has_the_plain_convolution(name):
  shape, (size, out), stride, dilation = CASES[name]
  arguments = [jax.ShapeDtypeStruct(sides, jnp.float32) for sides in (shape, (size, size, shape[-1], out))]

  def lower(way, platform):
    grad = jax.jit(jax.grad(lambda *both: way(*both, stride, dilation).sum(), (0, 1)))
    text = jax.export.export(grad, platforms=[platform])(*arguments).mlir_module()
    return sorted(line.split('stablehlo.')[1].split(' ')[0] for line in text.splitlines()
                  if 'stablehlo.convolution' in line or 'stablehlo.dot' in line or 'stablehlo.while' in line)

  assert lower(convolve, 'tpu') == lower(convolve, 'cuda') == lower(convolve_plainly, 'tpu')
  assert lower(convolve, 'cpu') != lower(convolve_plainly, 'tpu')


@pytest.mark.parametrize('name', ('3 x 3 of 2 x 2', '3 x 3 of 7 x 5', '3 x 3 of 4 x 4 with dilation', 'down to 2 x 2'))
def test_the_kernel_gradient_of_a_small_map_is_no_sum_of_padded_taps(name):
  shape, (size, out), stride, dilation = CASES[name]
  arguments = [jax.ShapeDtypeStruct(sides, jnp.float32) for sides in (shape, (size, size, shape[-1], out))]
  grad = jax.jit(jax.grad(lambda *both: convolve(*both, stride, dilation).sum(), 1))
  text = grad.lower(*arguments).as_text()
  kernel = f'tensor<{size}x{size}x{shape[-1]}x{out}xf32>'
  assert not [line for line in text.splitlines() if 'stablehlo.pad' in line and line.endswith(kernel)]
