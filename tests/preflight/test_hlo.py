"""FLOPs, HBM traffic and collectives counted in a program's text, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtpret_jax.models.conv import convolve_plainly
from mtpret_jax.preflight import hlo
from mtpret_jax.runtime.sharding import by_batch, make_mesh, replicated


def write(function, *shapes, kind=jnp.float32):
  """The program as HLO text, before compilation."""
  lowered = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, kind) for shape in shapes))
  return lowered.compiler_ir('hlo').as_hlo_text()


def test_a_matrix_product_is_two_operations_for_each_triple():
  assert hlo.count_flops(write(jnp.dot, (3, 5), (5, 7))) == 2 * 3 * 5 * 7
  batched = write(lambda a, b: jnp.einsum('bij,bkj->bik', a, b), (2, 3, 5), (2, 7, 5))
  assert hlo.count_flops(batched) == 2 * 2 * 3 * 5 * 7


def test_a_gradient_costs_two_products_more():
  def loss(a, b):
    return jnp.square(a @ b).sum()
  assert hlo.count_flops(write(jax.grad(loss, (0, 1)), (3, 5), (5, 7))) == 3 * 2 * 3 * 5 * 7


@pytest.mark.parametrize('side, stride, taps', [(6, 1, 16), (6, 2, 8), (7, 2, 10)])
def test_taps_that_fall_on_padding_are_not_counted(side, stride, taps):
  """`taps` of three meet a pixel along one side, counted by hand: 2 + 3 + 3 + 3 + 3 + 2 of a side of 6."""
  text = write(lambda images, kernel: convolve_plainly(images, kernel, stride, 1), (2, side, side, 5), (3, 3, 5, 4))
  assert hlo.count_flops(text) == 2 * 2 * 5 * 4 * taps ** 2


@pytest.mark.parametrize('stride', [1, 2])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(stride):
  """The gradients of the input (with zeros between the pixels at stride 2) and of the kernel."""
  def convolve(images, kernel):
    return convolve_plainly(images, kernel, stride, 1)

  def pull(images, kernel):
    out, gradients = jax.vjp(convolve, images, kernel)
    return gradients(out)
  shapes = (2, 8, 8, 5), (3, 3, 5, 4)
  assert hlo.count_flops(write(pull, *shapes)) == 3 * hlo.count_flops(write(convolve, *shapes))


def test_of_several_branches_the_most_expensive_counts():
  def choose(index, a):
    return jax.lax.switch(index, [lambda a: a, lambda a: a @ a, lambda a: a @ a @ a], a)
  text = jax.jit(choose).lower(jnp.int32(0), jax.ShapeDtypeStruct((4, 4), jnp.float32)).compiler_ir('hlo')
  assert hlo.count_flops(text.as_hlo_text()) == 2 * 2 * 4 ** 3


def test_a_fusion_reads_its_operands_and_writes_its_result_once():
  """The product between the two additions stays on the chip."""
  compiled = jax.jit(lambda a: (a + 1) * a + 2).lower(jax.ShapeDtypeStruct((1000, 8), jnp.float32)).compile()
  assert hlo.count_hbm_bytes(compiled.as_text()) == 2 * 1000 * 8 * 4


def test_fast_memory_is_not_hbm_traffic_and_tiles_are_padded():
  text = '\n'.join([
    'ENTRY %main (a: bf16[32,56,56,64]) -> bf16[32,56,56,64] {',
    '  %a = bf16[32,56,56,64]{3,2,1,0:T(8,128)(2,1)} parameter(0)',
    '  ROOT %b = bf16[32,56,56,64]{3,2,1,0:T(8,128)(2,1)S(1)} fusion(%a), kind=kLoop, calls=%inside',
    '}'])
  assert hlo.count_hbm_bytes(text) == 32 * 56 * 56 * 128 * 2


def compile_on_eight(function, inputs, outputs):
  mesh, rows = make_mesh(), jax.ShapeDtypeStruct((16, 5), np.float32)
  return jax.jit(function, in_shardings=inputs(mesh), out_shardings=outputs(mesh)).lower(rows).compile().as_text()


def test_collectives_have_an_operation_and_a_size():
  summed, gathered, local = (compile_on_eight(*program) for program in (
    (lambda rows: rows.sum(0), by_batch, replicated), (lambda rows: rows, by_batch, replicated),
    (lambda rows: 2 * rows, by_batch, by_batch)))
  assert hlo.list_collectives(summed) == [('all-reduce', 5 * 4)]
  assert hlo.list_collectives(gathered) == [('all-gather', 16 * 5 * 4)]
  assert hlo.list_collectives(local) == []


def test_collectives_that_share_a_channel_are_told_apart_and_copies_of_one_are_not():
  """In the form of the TPU compiler, inside fusions."""
  text = """
%one (input: f32[8,4]) -> f32[1,4] {
  %input = f32[8,4]{1,0} parameter(0)
  %sum.1 = f32[8,4]{1,0} all-reduce(%input), channel_id=1, to_apply=%add
}
%two (input: f32[8,6]) -> f32[1,6] {
  %input = f32[8,6]{1,0} parameter(0)
  %sum.2 = f32[8,6]{1,0} all-reduce(%input), channel_id=1, to_apply=%add
}
%copy (input: f32[8,6]) -> f32[1,6] {
  %input = f32[8,6]{1,0} parameter(0)
  %sum.3 = f32[8,6]{1,0} all-reduce(%input), channel_id=1, to_apply=%add
}
"""
  assert hlo.list_collectives(text) == [('all-reduce', 8 * 4 * 4), ('all-reduce', 8 * 6 * 4)]


def test_a_program_is_read_with_its_loops_and_calls():
  def repeat(a):
    return jax.lax.while_loop(lambda state: state[0] < 10, lambda state: (state[0] + 1, state[1] @ a), (0, a))[1]
  assert hlo.count_flops(write(repeat, (4, 4))) == 2 * 4 ** 3, 'the number of iterations is not in the program'
