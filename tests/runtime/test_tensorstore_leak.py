"""`to_json` of specs gives the same dict without tensorstore's leak, and saving a checkpoint leaks no object."""

import gc
import sys

import jax.numpy as jnp
import pytest
import tensorstore as ts

from mtpret_jax.runtime import checkpoint, tensorstore_leak

SPECS = [
  ts.KvStore.Spec({'driver': 'file', 'path': '/tmp/B\u00fccher/\u65e5\u672c/it\'s "this"/'}),
  ts.KvStore.Spec({'driver': 'ocdbt', 'base': 'file:///tmp/a b/', 'config': {'max_inline_value_bytes': 3}}),
  ts.Spec({'driver': 'zarr3', 'kvstore': 'file:///tmp/a/', 'metadata': {
    'shape': [3, 4], 'data_type': 'float32', 'fill_value': 'NaN'}, 'transform': {'input_exclusive_max': ['+inf', 4]}}),
  ts.Spec({'driver': 'array', 'array': [1.5, -0.1], 'dtype': 'float64'})]


@pytest.mark.parametrize('spec', SPECS)
def test_a_spec_gives_the_same_dict_and_leaks_nothing(spec):
  given = spec.to_json()
  assert given == type(spec).to_json.__wrapped__(spec)
  before = sys.getallocatedblocks()
  for _ in range(1000):
    spec.to_json()
  assert sys.getallocatedblocks() - before < 1000


def test_options_of_a_spec_are_passed_on():
  assert SPECS[0].to_json(include_defaults=True) == ts.KvStore.Spec.to_json.__wrapped__(SPECS[0], include_defaults=True)


def test_a_spec_whose_text_cannot_be_parsed_is_converted_by_tensorstore():
  spec = type('Spec', (), {'__repr__': lambda _: 'Spec<of another version>'})()
  assert tensorstore_leak.parse_repr(lambda spec: {'converted': type(spec).__name__})(spec) == {'converted': 'Spec'}


def test_a_save_leaks_no_object(tmp_path):
  state = {f'weight_{number}': jnp.zeros(8) for number in range(50)}
  counts = []
  with checkpoint.open_checkpoints(tmp_path, keep=1) as checkpoints:
    for step in range(1, 13):
      checkpoint.save(checkpoints, state, step, {}, wait=True)
      gc.collect()
      counts.append(sys.getallocatedblocks())
  assert counts[-1] - counts[3] < 8 * 100  # with the leak it is 300 per save
