"""The reliability benchmarks at small n: kills, damaged checkpoints, and how a soak is judged."""

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import damage, soak
from mtpret_jax.runtime import checksums


def test_every_damage_is_noticed(tmp_path):
  assert damage.run(2 * len(damage.DAMAGES), 1, tmp_path) == 2 * len(damage.DAMAGES)


def test_damage_is_found_by_the_checksums_and_not_by_luck(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(checksums, 'find_damage', lambda folder: '')
  found = damage.run(len(damage.DAMAGES), 1, tmp_path)
  assert found < len(damage.DAMAGES) // 2
  assert 'flipped bit in the arrays: step 6 was loaded' in capsys.readouterr().out


def test_a_killed_run_ends_in_the_same_bits():
  done = subprocess.run([sys.executable, '-m', 'benchmarks.kills', '--n=2', '--seed=5'],
                        env=os.environ | {'XLA_FLAGS': ''}, capture_output=True, text=True)
  kills = done.stdout.splitlines()[-1].split()
  assert kills[0] == 'kills:' and kills[1] == kills[3] and int(kills[1]) >= 1, done.stdout + done.stderr


def make_samples(growth=0.0, files=0, minutes=60):
  """A soak of 7,200 steps, with saves that hold 350 MB in one of four samples."""
  seconds = np.arange(0, 60 * minutes, 10.0)
  rng, share = np.random.default_rng(0), seconds / seconds[-1]
  saves = rng.random(len(seconds)) < 0.25
  return np.stack([seconds, 2 * seconds, 1000 + growth * 2 * seconds / 1000 + 350 * saves + rng.normal(size=len(saves)),
                   17 + 15 * saves + (files * share).round(), 94 + 15 * saves], axis=1)


@pytest.mark.parametrize('growth, files, held', [(0.0, 0, 3), (0.7, 0, 3), (1.5, 0, 2), (0.0, 4, 2), (5.0, 4, 1)])
def test_a_soak_tells_growth_from_what_a_save_holds(growth, files, held):
  assert soak.judge(make_samples(growth, files)) == held


@pytest.mark.parametrize('growth, code', [(0.0, 0), (1.5, 1)])
def test_the_command_that_judges_an_earlier_soak_fails_if_a_rule_does(growth, code, tmp_path, monkeypatch, capsys):
  np.savetxt(tmp_path / 'samples.csv', make_samples(growth), delimiter=',')
  monkeypatch.setattr(sys, 'argv', ['soak', f'--again={tmp_path}/samples.csv'])
  assert soak.main() == code
  assert capsys.readouterr().out.endswith(f'soak: {3 - code} of 3\n')
