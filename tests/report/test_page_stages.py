"""The pages of stages 1 and 2, of recipes and of the table, and of runs side by side."""

import json

import pytest

from mtpret_jax.report import __main__ as command
from mtpret_jax.report import table
from mtpret_jax.report.page import write_comparison, write_page
from mtpret_jax.report.pages.pretrain import label_ticks
from mtpret_jax.report.pages.training import find_visits
from tests.support.html_pages import read_page
from tests.support.made_up_runs import write_recipe, write_stage_1, write_stage_2, write_stage_3
from tests.support.made_up_table import finish_cell, make_cells, make_config


def test_the_page_of_stage_1_says_what_pretraining_brought(tmp_path):
  page = read_page(write_page(write_stage_1(tmp_path)))
  assert 'What is missing' not in page.text
  assert 'better after pretraining on 1 of 1 dataset Clearly better on 1, clearly worse on 0 (the 95' in page.text
  assert 'better on 1 of 1. mura' in page.text
  assert 'its scores mean nothing: it took only 6 steps and' in page.text and 'Start again' not in page.text
  assert 'on at most 48 images of each split (at the end: 48)' in page.text
  assert 'mura: with 10 % of the labels (9 images), AUROC 0.875 after pretraining and 0.750 before (' in page.text
  assert 'mura: fewer than 50 validation images' in page.text and 'Contrastive accuracy' in page.text


def test_the_page_of_stage_1_repeats_what_the_terminal_says_of_a_decline(tmp_path):
  run = write_stage_1(tmp_path)
  results = json.loads((run / 'results.json').read_text())
  (run / 'results.json').write_text(json.dumps(results | {'decline': 'The trunk is worse. Start again.'}))
  assert 'The trunk is worse. Start again.' in read_page(write_page(run)).text


def test_every_number_of_images_has_a_tick_that_fits():
  assert label_ticks([16.0, 18.0, 21.0, 1600.0]) == ['16', '', '21', '1,600']


def test_the_page_of_stage_2_says_forgotten_or_improved(tmp_path):
  page = read_page(write_page(write_stage_2(tmp_path)))
  assert 'What is missing' not in page.text
  assert 'chest AUC 0.750 0.625 forgot 0.125 −0.125' in page.text
  assert 'hand MAE (months) 12.50 9.500 improved by 3.000 +3.000' in page.text
  assert 'Drift of the trunk' in page.text and 'The background is the task that was trained' in page.text


def test_after_one_round_nothing_can_have_been_forgotten(tmp_path):
  run = write_stage_2(tmp_path)
  rounds = json.loads((run / 'rounds.json').read_text())
  rounds['rounds'] = rounds['rounds'][:1]
  (run / 'rounds.json').write_text(json.dumps(rounds))
  page = read_page(write_page(run))
  assert 'chest AUC 0.750 hand' in page.text and 'orgot' not in page.text


def test_visits_follow_from_the_log():
  lines = [{'step': step, 'task': task} for step, task in ((5, 'a'), (10, 'a'), (15, 'b'), (20, 'a'))]
  assert find_visits(lines) == [('a', 0, 10), ('b', 10, 15), ('a', 15, 20)]


def test_the_page_of_a_recipe_links_to_those_of_its_stages(tmp_path):
  recipe = write_recipe(tmp_path / 'recipe')
  page = read_page(write_page(recipe))
  addresses = [address for address in page.find('href') if address.endswith('.html')]
  assert addresses == [f'{stage}/report.html' for stage in ('pretrain', 'continual', 'two')]
  assert all((recipe / address).is_file() for address in addresses)
  assert 'stage 2: several tasks' in page.text and 'Seen before.' in page.text and 'phantoms' in page.text


def test_the_page_of_a_recipe_has_no_column_of_bars_if_no_score_is_from_0_to_1(tmp_path):
  recipe = write_recipe(tmp_path)
  scores = json.loads((recipe / 'scores.json').read_text())
  assert '95 % interval 0 to 1 images' in read_page(write_page(recipe)).text
  result = scores['two']['tasks']['two']
  result.update(headline='MAE (months)', scores={'MAE (months)': {'value': 16.8, 'interval': [14.7, 18.8]}})
  (recipe / 'scores.json').write_text(json.dumps(scores))
  page = read_page(write_page(recipe))
  assert '95 % interval images patients' in page.text and '14.70 to 18.80' in page.text


def test_the_page_of_the_table_has_means_differences_and_cells(tmp_path, capsys):
  cells = make_cells(tmp_path / 'table', tasks=('two',), inits=('scratch', 'mtpret'), fractions=(1.0,))
  for cell in cells[:2] + cells[3:]:  # one of scratch is missing
    finish_cell(cell)
  config = make_config(tmp_path / 'table', tasks=('two',))
  table.finish(config, cells)
  assert capsys.readouterr().out.splitlines()[-1] == f'Report: {tmp_path / "table" / "report.html"}'
  page = read_page(tmp_path / 'table' / 'report.html')
  assert 'What is missing' not in page.text
  assert '100 % of the labels: test scores' in page.text and 'difference in AUC' in page.text
  assert page.text.count('two, mtpret') == 2
  difference = page.text.partition('difference in AUC')[2].partition('Cells')[0]
  assert difference.split()[-1] == '1', 'the seeds that scratch has too'


def test_runs_side_by_side_have_a_paired_difference(tmp_path, capsys):
  first, second = (write_stage_3(tmp_path / name, 'two') for name in ('first', 'second'))
  out = tmp_path / 'both.html'
  write_page(first)
  assert command.main([str(first), str(second), '--out', str(out)]) == 0
  assert capsys.readouterr().out.splitlines()[-1] == f'See {out}'
  page = read_page(out)
  assert 'The difference is that to first' in page.text and '+0.000 +0.000 to +0.000' in page.text
  assert 'first/report.html' in page.find('href') and 'ROC' in page.text
  assert 'The configs do not differ' in page.text


def test_runs_with_other_images_have_a_difference_without_an_interval(tmp_path):
  runs = [write_stage_3(tmp_path / 'few', 'value', images=40), write_stage_3(tmp_path / 'many', 'value', images=60)]
  saved = json.loads((runs[1] / 'config.json').read_text())
  saved['config']['seed'] = 5
  (runs[1] / 'config.json').write_text(json.dumps(saved))
  page = read_page(write_comparison(runs, tmp_path / 'both.html'))
  scores = [json.loads((run / 'scores.json').read_text())['tasks']['value']['scores']['MAE (months)']['value']
            for run in runs]
  change = scores[0] - scores[1]  # positive is better, and a lower error is better
  assert f'{"+" if change > 0 else "−"}{abs(change):.3f}' in page.text and 'seed 0 5' in page.text


@pytest.mark.parametrize('write, name', [(write_stage_1, 'results.json'), (write_stage_2, 'rounds.json')])
def test_pages_of_runs_that_are_not_finished_say_so(write, name, tmp_path):
  run = write(tmp_path)
  (run / name).unlink()
  page = read_page(write_page(run))
  assert 'not finished' in page.text and f'{name} is not there yet' in page.text and 'Learning rate' in page.text


def test_all_kinds_of_runs_can_be_side_by_side(tmp_path):
  runs = [write_stage_1(tmp_path / 'one'), write_stage_2(tmp_path / 'two'), write_recipe(tmp_path / 'all')]
  page = read_page(write_comparison([*runs, runs[1]], tmp_path / 'page.html'))
  assert 'hand (validation)' in page.text and 'mura, linear model on 10 % of the labels' in page.text
