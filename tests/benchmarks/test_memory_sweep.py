"""The sweep of the memory's strength: its configs are valid, and its table has the mean of the seeds."""

import argparse

import pytest

from benchmarks import memory_sweep
from mtpret_jax.config.validate import check_fields

OPTIONS = argparse.Namespace(archives='archives', folder='runs', scratch=False, steps=30, start_steps=400, rounds=4)


@pytest.mark.parametrize('optimiser', memory_sweep.OPTIMISERS)
def test_the_configs_of_the_sweep_are_valid(optimiser):
  check_fields(memory_sweep.make_start_config(OPTIONS))
  config = memory_sweep.make_sweep_config(OPTIONS, optimiser, 0.3, 1)
  check_fields(config)
  assert (config.memory.l2_sp, config.seed, config.init_from) == (0.3, 1, 'runs/start')


def test_the_table_has_the_mean_and_the_deviation_of_the_chosen_seeds():
  rows = [dict(optimiser='sgd', l2_sp='0.1', seed=str(seed), drift=str(drift)) for seed, drift in enumerate((9, 1, 3))]
  assert memory_sweep.describe(rows, [1, 2]).splitlines()[2:] == ['| sgd | 0.1 | 2.000 ± 1.414 |']
  assert memory_sweep.describe(rows, [0]).splitlines()[2:] == ['| sgd | 0.1 | 9.000 |']
