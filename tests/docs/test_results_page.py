"""docs/results.md has the tables of results/, and workdirs of a table can be added to them."""

import shutil

import pytest

from docs import make_results
from mtpret_jax.report import table
from mtpret_jax.report.table_cells import Score, read_rows, write_csv
from mtpret_jax.report.table_forgetting import Forgetting
from mtpret_jax.report.table_summary import Summary
from tests.support.made_up_table import finish_cell, make_cells, make_config

GIVEN = dict(command='python -m mtpret_jax.main --config=configs/table.py', machine='two cores', hours=1.5)
PAGE = f'# Results\n\n{make_results.BEGIN}\n\nstale\n\n{make_results.END}\n\n## By hand\n'


def test_the_page_is_what_the_generator_writes():
  page = make_results.PAGE.read_text()
  assert page == make_results.make_page(page), 'docs/results.md is not current: run `python -m docs.make_results`'


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A report of made-up cells."""
  workdir = tmp_path_factory.mktemp('table')
  cells = make_cells(workdir, fractions=(1.0,))
  for cell in cells:
    finish_cell(cell)
  table.finish(make_config(workdir), cells)
  return workdir


@pytest.fixture
def results(tmp_path, monkeypatch):
  """An empty results/ beside a page."""
  monkeypatch.setattr(make_results, 'RESULTS', tmp_path / 'results')
  monkeypatch.setattr(make_results, 'PAGE', tmp_path / 'results.md')
  (tmp_path / 'images').mkdir()
  make_results.PAGE.write_text(PAGE)
  return tmp_path / 'results'


def test_without_results_the_page_has_no_table(results):
  assert make_results.make_page(PAGE) == PAGE.replace('stale\n\n', '')


def test_an_exported_table_is_on_the_page_with_command_commit_and_seeds(workdir, results):
  make_results.main([f'--table={workdir}', '--name=phantoms',
                     *(f'--{field}={value}' for field, value in GIVEN.items())])
  page = make_results.PAGE.read_text()
  assert page.startswith('# Results\n') and page.endswith('\n\n## By hand\n') and 'stale' not in page
  assert page == make_results.make_page(page)
  assert f'```sh\n{GIVEN["command"]}\n```' in page
  assert '12 cells with 2 seeds (1, 2); commit 0123456789ab; 1.5 hours on two cores.' in page
  assert '| init | two (AUC) | value (MAE (months)) | mean rank |' in page
  mean = next(row.mean for row in read_rows(results / 'phantoms_differences.csv', Summary)
              if (row.task, row.init) == ('value', 'mtpret'))
  assert f'**{mean:.2f} ± ' in page
  assert 'excludes 0: ' in page and ' of 4.' in page and '* Better than scratch: ' in page
  assert (results / 'phantoms.csv').read_bytes() == (workdir / 'cells.csv').read_bytes()
  assert (results / 'phantoms_differences.csv').read_bytes() == (workdir / 'differences.csv').read_bytes()


def test_what_stage_2_forgot_is_on_the_page_and_adds_up(workdir, results, tmp_path):
  other = tmp_path / 'other'
  shutil.copytree(workdir, other)
  for folder, init, value in ((workdir, 'muscle--', 0.25), (other, 'mtpret', -0.125)):
    (folder / 'forgetting.csv').write_text(write_csv(Forgetting._fields, [
      Forgetting(init, 1.0, 'two', number, 2, value * number, None) for number in (1, 2)]))
    make_results.export(folder, 'phantoms', **GIVEN)
  page = make_results.make_page(PAGE)
  assert '| 100 % | muscle-- | forgot 0.500 |' in page and '| 100 % | mtpret | improved by 0.250 |' in page
  assert '[phantoms_forgetting.csv](../results/phantoms_forgetting.csv)' in page
  assert len(read_rows(results / 'phantoms_forgetting.csv', Forgetting)) == 4


def test_cells_of_several_workdirs_add_up(workdir, results, tmp_path):
  """Another workdir has seed 3 instead of 2, and another value for a cell that both have."""
  make_results.export(workdir, 'phantoms', **GIVEN)
  other = tmp_path / 'other'
  other.mkdir()
  scores = read_rows(workdir / 'cells.csv', Score)
  changed = [score._replace(seed={1: 1, 2: 3}[score.seed], value=0.25) for score in scores if score.init != 'mtpret']
  (other / 'cells.csv').write_text(write_csv(Score._fields, changed))
  rows = [row._replace(difference=0.125) for row in read_rows(workdir / 'differences.csv', Summary)
          if row.init == 'md_moco']
  (other / 'differences.csv').write_text(write_csv(Summary._fields, rows))
  (other / 'signs.json').write_text((workdir / 'signs.json').read_text())
  warnings = make_results.export(other, 'phantoms')
  merged = {score[:4]: score for score in read_rows(results / 'phantoms.csv', Score)}
  assert len(merged) == len(scores) + 4 and merged['two', 'scratch', 1.0, 1].value == 0.25
  assert merged['two', 'scratch', 1.0, 2] in scores and merged['two', 'mtpret', 1.0, 1] in scores
  row, = (row for row in read_rows(results / 'phantoms_differences.csv', Summary)
          if (row.task, row.init) == ('two', 'md_moco'))
  assert (row.seeds, row.difference) == (3, 0.125)
  assert warnings[0] == ('the difference of md_moco on two (100 %) covers 2 of 3 seeds: run the table in a workdir '
                         'that has all of its cells')


@pytest.mark.parametrize('fields, said', [
  (dict(name='mine'), 'unknown --name=mine: choose one of real_small, '),
  (dict(command=None), '--command is needed'),
  (dict(command='python -m mtpret_jax.main --config.data.archives=/data/x'), 'has a path of one machine')])
def test_an_export_that_cannot_be_is_refused(fields, said, workdir, results):
  given = dict(name='phantoms', **GIVEN) | fields
  with pytest.raises(ValueError, match=said):
    make_results.export(workdir, **given)
  assert not results.exists()


def test_pneumonia_stands_beside_the_row_that_muscle_prints(results):
  results.mkdir()
  rows = [Summary('pneumonia', init, 1.0, 'AUC', 3, mean, 0.0031, None, None, None)
          for init, mean in (('scratch', 0.97), ('mtpret', 0.9812))]
  (results / 'real_small.csv').write_text(write_csv(Score._fields, []))
  (results / 'real_small_differences.csv').write_text(write_csv(Summary._fields, rows))
  make_results.write_json(results / 'real_small.json', GIVEN | {'signs': {'pneumonia': 1}})
  page = make_results.make_page(PAGE)
  assert '| Scratch (`scratch`) | 96.58 (95.09 to 97.81) | 97.00 ± 0.31 | 3 |' in page
  assert '| MUSCLE (`mtpret`) | 99.61 (99.32 to 99.83) | 98.12 ± 0.31 | 3 |' in page
  assert '| ImageNet (`imagenet`) | 96.05 (94.24 to 97.33) | - | - |' in page
