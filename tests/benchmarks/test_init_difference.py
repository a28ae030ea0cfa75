"""The difference of two initialisations is that of the table where the second one is scratch."""

import json
import re

import pytest

from benchmarks import init_difference
from mtpret_jax.report.table_differences import compute_differences
from tests.support.made_up_table import RESAMPLES, finish_cell, make_cells


def run(workdir, capsys, task, *inits):
  assert init_difference.main([str(workdir), task, '1.0', *inits, f'--resamples={RESAMPLES}']) == 0
  return [float(number) for number in re.findall(r'-?\d+\.\d{3}', capsys.readouterr().out)]


def test_it_is_the_difference_of_the_table_and_has_its_sign(tmp_path, capsys):
  cells, finished = make_cells(tmp_path, inits=('scratch', 'mtpret'), fractions=(1.0,), seeds=(1, 2, 3)), []
  for cell in cells:
    cell.config.workdir = str(tmp_path / 'cells' / cell.task / cell.init / '1' / str(cell.seed))
    finish_cell(cell)
    with open(f'{cell.config.workdir}/scores.json') as file:
      finished.append((cell, json.load(file)))
  table = compute_differences(finished, RESAMPLES)
  for task in ('two', 'value'):  # AUC, where higher is better, and MAE, where lower is
    shown, expected = run(tmp_path, capsys, task, 'mtpret', 'scratch'), table[task, 'mtpret', 1.0]
    assert shown == pytest.approx([expected.value, *expected.interval], abs=6e-4) and shown[0] > 0
    assert run(tmp_path, capsys, task, 'scratch', 'mtpret')[0] == -shown[0]


def test_initialisations_without_common_seeds_are_refused(tmp_path, capsys):
  with pytest.raises(SystemExit):
    init_difference.main([str(tmp_path), 'two', '1.0', 'md_moco', 'moco'])
  assert 'has no seed with finished cells of both md_moco and moco' in capsys.readouterr().err
