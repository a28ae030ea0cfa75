"""An exported run's weights come back as they were saved; a damaged file is refused in a line."""

import jax
import numpy as np
import pytest

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.runtime import weights_file

PARAMS = {'trunk': {'stages': {0: {1: {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3).T}}}},
          'lung': {'logits': {'bias': np.float32([1, 2])}}}
STATS = {'trunk': {'lung': {'norm1': {'mean': np.float32([0.5])}}}, 'lung': {}}  # a head without batch norm


@pytest.fixture
def folder(tmp_path):
  weights_file.write_weights(tmp_path, PARAMS, STATS, {'step': '12', 'state': 'best'})
  return tmp_path


def test_weights_come_back_with_the_indices_of_lists(folder):
  state, metadata = weights_file.read_weights(folder)
  assert state['step'] == 12 and metadata == {'step': '12', 'state': 'best'}
  jax.tree.map(np.testing.assert_array_equal, state['params'], PARAMS)
  jax.tree.map(np.testing.assert_array_equal, state['carry']['stats'], STATS)


@pytest.mark.parametrize('damage', [lambda raw: raw[:-3], lambda raw: b'{}', lambda raw: raw.replace(b'step', b'stop')])
def test_a_damaged_file_is_refused_with_the_remedy(folder, damage):
  path = folder / weights_file.FILE
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ConfigError, match='export the run again'):
    weights_file.read_weights(folder)
