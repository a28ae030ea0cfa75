"""The profile by kind of operation counts each nanosecond once, and for the operation that it belongs to."""

import jax
import jax.numpy as jnp

from benchmarks.support import operation_times
from mtpret_jax.cpu import conv as cpu_conv
from mtpret_jax.models import conv
from mtpret_jax.runtime import backend


def test_the_time_of_a_loop_leaves_out_what_its_instructions_take():
  events = [(10, 5, 'inner'), (0, 100, 'loop'), (15, 60, 'loop inside'), (20, 30, 'innermost'), (200, 7, 'after')]
  assert dict(operation_times.subtract_inner(events)) == {
    'loop': 35, 'inner': 5, 'loop inside': 30, 'innermost': 30, 'after': 7}


def test_an_instruction_counts_for_the_operation_that_it_comes_from():
  operations = operation_times.list_operations('''
  ROOT %fusion.1 = f32[2]{0} fusion(%x), kind=kLoop, metadata={op_name="jit(step)/transpose(jvp(batch norm))/sub"}
  copy.2 = f32[2]{0} copy(y)
  mul = f32[2]{0} multiply(y, y), metadata={op_name="jit(step)/mul"}''')
  assert {name: operation_times.find_kind(name, operations) for name in operations} == {
    'fusion.1': operation_times.NORM, 'copy.2': 'changes of layout', 'mul': 'optimiser and checks'}


def test_a_convolution_and_its_gradients_are_told_apart(monkeypatch):
  monkeypatch.setitem(backend.OVERRIDES, 'convolve', cpu_conv.convolve)
  monkeypatch.setitem(backend.OVERRIDES, 'convolution_gradients', cpu_conv.compute_gradients)
  arrays = jnp.ones((2, 4, 4, 8)), jnp.ones((1, 1, 8, 8))

  def differentiate(images: jax.Array, kernel: jax.Array) -> tuple:
    return jax.grad(lambda *arrays: jnp.square(conv.convolve(*arrays, 1)).sum(), (0, 1))(images, kernel)

  with operation_times.name_operations():
    program = jax.jit(differentiate).lower(*arrays).compile()
  times = operation_times.measure('ours', lambda count: jax.block_until_ready(program(*arrays)))
  assert {operation_times.FORWARD, operation_times.BY_IMAGES, operation_times.BY_KERNEL} <= set(times)
  assert min(times.values()) > 0
