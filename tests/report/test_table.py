"""The report of the papers' table, on made-up cells."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest
from scipy.stats import rankdata

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.report import table, table_plots, table_text
from mtpret_jax.report.table_cells import Score, read_rows
from mtpret_jax.report.table_summary import Summary, make_table, rank_values
from tests.support.made_up_table import finish_cell, make_cells, make_config

FILES = ('cells.csv', 'differences.csv', 'table.tex', 'table.txt', 'efficiency.png', 'ranks.png')


@pytest.fixture(scope='module')
def reported(tmp_path_factory):
  """(workdir, cells) of a table with one cell missing: value, mtpret, 1 %, seed 2."""
  workdir = tmp_path_factory.mktemp('table')
  cells = make_cells(workdir)
  for cell in cells:
    if (cell.task, cell.init, cell.fraction, cell.seed) != ('value', 'mtpret', 0.01, 2):
      finish_cell(cell)
  for seed in (1, 2):
    write_rounds(workdir / f'pretraining_mtpret_0.01_{seed}', [0.5, 0.8, 0.6 + seed / 10])
  table.finish(make_config(workdir), cells)
  return workdir, cells


def write_rounds(folder, values):
  folder.mkdir()
  lines = [{'step': step, 'tasks': {'two': {'headline': 'AUC', 'value': value, 'sign': 1}}}
           for step, value in enumerate(values)]
  (folder / 'rounds.json').write_text(json.dumps({'rounds': lines, 'tasks': {'two': {}}, 'order': 'cyclic'}))


def read_csv(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def find(rows, **fields):
  return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def test_every_file_is_written(reported):
  workdir, _ = reported
  assert all((workdir / name).stat().st_size > 100 for name in FILES)
  assert not list(workdir.glob('*.part'))


def test_cells_csv_has_the_headline_score_of_each_finished_cell(reported):
  workdir, cells = reported
  rows = read_csv(workdir / 'cells.csv')
  assert list(rows[0]) == 'task,init,fraction,seed,metric,value,low,high,images,steps,commit'.split(',')
  assert len(rows) == len(cells) - 1
  cell = next(cell for cell in cells if (cell.task, cell.init, cell.fraction, cell.seed) == ('two', 'mtpret', 1.0, 2))
  row, = find(rows, task='two', init='mtpret', fraction='1', seed='2')
  expected = json.loads(pathlib.Path(cell.config.workdir, 'scores.json').read_text())['tasks']['two']['scores']['AUC']
  assert [float(row[name]) for name in ('value', 'low', 'high')] == pytest.approx(
    [expected['value'], *expected['interval']], rel=1e-5)
  assert (row['metric'], row['images'], row['steps'], row['commit']) == ('AUC', '30', '100', '0123456789ab')


def test_differences_csv_has_mean_spread_and_the_difference_to_scratch(reported):
  workdir, _ = reported
  rows, cells = read_csv(workdir / 'differences.csv'), read_csv(workdir / 'cells.csv')
  assert list(rows[0]) == 'task,init,fraction,metric,seeds,mean,sd,difference,low,high'.split(',')
  own, scratch = ([float(cell['value']) for cell in find(cells, task='value', init=init, fraction='1')]
                  for init in ('mtpret', 'scratch'))
  row, = find(rows, task='value', init='mtpret', fraction='1')
  assert float(row['mean']) == pytest.approx(np.mean(own), rel=1e-5)
  assert float(row['sd']) == pytest.approx(np.std(own, ddof=1), rel=1e-4)
  assert float(row['difference']) == pytest.approx(np.mean(scratch) - np.mean(own), rel=1e-4)
  assert float(row['difference']) > 0 and row['metric'] == 'MAE (months)', 'a smaller error is better'
  assert float(row['low']) <= float(row['difference']) <= float(row['high'])
  for row in find(rows, init='scratch'):
    assert (row['difference'], row['low'], row['high']) == ('', '', '')


def test_a_difference_counts_the_seeds_that_both_have(reported):
  workdir, _ = reported
  row, = find(read_csv(workdir / 'differences.csv'), task='value', init='mtpret', fraction='0.01')
  one, other = (find(read_csv(workdir / 'cells.csv'), task='value', init=init, fraction='0.01', seed='1')[0]
                for init in ('scratch', 'mtpret'))
  assert (row['seeds'], row['sd']) == ('1', '')
  assert float(row['difference']) == pytest.approx(float(one['value']) - float(other['value']), rel=1e-4)


def test_the_text_marks_the_best_and_counts_what_is_missing(reported):
  text = (reported[0] / 'table.txt').read_text()
  scores, differences = text.split('Difference to scratch')
  for block in scores.split('of the labels')[1:]:
    lines = block.strip().splitlines()
    assert lines[0].split() == ['init', 'two', '(AUC)', 'value', '(MAE', '(months))', 'mean', 'rank']
    assert [line.split()[0] for line in lines[1:4]] == ['scratch', 'md_moco', 'mtpret']
    assert block.count('(best)') == 2
  assert '1 of 24 cells is missing, so means may be over different seeds' in text
  assert 'Lower is better for MAE (months).' in text and 'one interval in twenty excludes 0 by chance' in text
  assert re.search(r'^mtpret +\+0\.\d{3} \([+-]0\.\d{3} to \+0\.\d{3}\)', differences, re.MULTILINE)
  assert 'What stage 2 forgot or gained' in text and re.search(r'^1 % +mtpret +forgot 0\.050$', text, re.MULTILINE)


def test_forgetting_is_listed_by_round(reported):
  rows = read_csv(reported[0] / 'forgetting.csv')
  assert [(row['round'], row['seeds'], float(row['forgetting'])) for row in rows] == [
    ('2', '2', pytest.approx(-0.3)), ('3', '2', pytest.approx(0.05))]


def test_the_same_cells_give_the_same_bytes_in_any_order(reported):
  workdir, cells = reported
  before = {name: (workdir / name).read_bytes() for name in FILES}
  table.finish(make_config(workdir), cells[::-1])
  assert {name: (workdir / name).read_bytes() for name in FILES} == before


def test_the_latex_table_is_whole_and_names_are_escaped(reported):
  latex = (reported[0] / 'table.tex').read_text()
  assert 'md\\_moco' in latex and latex.count(r'\begin{tabular}') == latex.count(r'\end{tabular}') == 2
  assert 'md_moco' not in latex and r'\providecommand{\toprule}{\hline}' in latex
  for tabular in re.findall(r'\\begin{tabular}{(l?c*)}(.*?)\\end{tabular}', latex, re.DOTALL):
    rows = [line for line in tabular[1].splitlines() if ' & ' in line]
    assert {row.count(' & ') + 1 for row in rows} == {len(tabular[0])}
  assert r'pretrain\_once' in latex and re.search(r'\(\$-\$0\.\d+ to \+', latex) and not re.search(r'[ (]-\d', latex)
  assert table_text.escape_latex('muscle--_50%') == r'muscle{-}{-}\_50\%'


def test_a_table_without_scratch_has_no_differences():
  made = make_table([summary('auc', init, 0.7) for init in ('moco', 'mtpret')], {'auc': 1})
  assert table_text.describe_table(made)[-1] == table_text.NO_DIFFERENCES
  latex = table_text.write_latex(made, 'tab:x')
  assert latex.count(r'\begin{table}') == 1 and 'differences' not in latex


@pytest.mark.parametrize('fractions', [(1.0,), (0.01, 1.0)])
def test_curves_show_the_spread_also_of_a_single_share_of_the_labels(fractions, monkeypatch):
  rows = [summary('auc', init, 0.7 + place / 10, fraction)._replace(sd=0.02)
          for place, init in enumerate(('scratch', 'mtpret')) for fraction in fractions]
  monkeypatch.setattr(table_plots, 'save', lambda figure: figure)
  axes, = table_plots.draw_efficiency(make_table(rows, {'auc': 1})).axes
  places = []
  for place, (_, _, (bars,)) in enumerate(axes.containers):
    ends = np.array(bars.get_segments())
    assert ends[:, :, 1] == pytest.approx(np.array([[0.68, 0.72]] * len(fractions)) + place / 10)
    places.append(ends[:, 0, 0])
  assert (places[0] < places[1]).all(), 'side by side'
  assert np.sqrt(places[0] * places[1]) == pytest.approx(100 * np.array(fractions))


def test_a_table_without_a_finished_cell_says_so(tmp_path, capsys):
  table.finish(make_config(tmp_path), make_cells(tmp_path, seeds=(1,)))
  printed = capsys.readouterr().out
  assert 'No cell is finished yet.' in printed and '12 of 12 cells are missing' in printed
  assert read_rows(tmp_path / 'cells.csv', Score) == []


def test_cells_that_were_scored_on_different_images_are_refused(tmp_path):
  cells = make_cells(tmp_path, tasks=('value',), inits=('scratch', 'mtpret'), fractions=(1.0,), seeds=(1,))
  for cell, images in zip(cells, (40, 39), strict=True):
    finish_cell(cell, images)
  with pytest.raises(ConfigError, match='value_mtpret_1_1 and .*value_scratch_1_1 cannot be compared.*39 images'):
    table.finish(make_config(tmp_path, tasks=('value',)), cells)


def test_damaged_scores_are_reported_with_what_to_do(tmp_path):
  cell, = make_cells(tmp_path, tasks=('value',), inits=('scratch',), fractions=(1.0,), seeds=(1,))
  finish_cell(cell)
  pathlib.Path(cell.config.workdir, 'scores.json').write_text('{"tasks": {}}')
  with pytest.raises(ConfigError, match='scores.json is damaged.*delete it and run the same command'):
    table.finish(make_config(tmp_path, tasks=('value',)), [cell])


def summary(task, init, mean, fraction=1.0):
  return Summary(task, init, fraction, 'AUC', 3, mean, 0.0, None, None, None)


def test_ranks_are_among_the_initialisations_with_every_task():
  means = {'scratch': (0.7, 10.0), 'md_moco': (0.8, 9.0), 'mtpret': (0.8, 11.0), 'joint': (0.9, None)}
  made = make_table([summary(task, init, value) for place, task in enumerate(('auc', 'mae'))
                     for init, values in means.items() if (value := values[place]) is not None],
                    {'auc': 1, 'mae': -1})
  assert made.mean_ranks == {('scratch', 1.0): 2.5, ('md_moco', 1.0): 1.25, ('mtpret', 1.0): 2.25}
  assert ('auc', 'joint', 1.0) not in made.ranks
  assert made.is_best(('auc', 'joint', 1.0)) and made.is_best(('mae', 'md_moco', 1.0))
  values = [0.5, 0.7, 0.5, 0.1, 0.5]
  assert rank_values(values) == rankdata(np.negative(values)).tolist() == [3, 1, 3, 5, 3]


def test_rows_are_read_as_they_were_written(reported):
  workdir, _ = reported
  rows = read_rows(workdir / 'differences.csv', Summary)
  assert rows[0].fraction == 0.01 and rows[0].seeds == 2 and rows[0].difference is None
  with pytest.raises(ValueError, match='must have the columns task, init, fraction, seed'):
    read_rows(workdir / 'differences.csv', Score)
