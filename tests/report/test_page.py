"""The pages of runs, made from hand-made files."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mtpret_jax.report import __main__ as command
from mtpret_jax.report.page import announce, write_page
from mtpret_jax.report.pages import detection, pictures
from mtpret_jax.report.pages.classification import make_mistakes
from mtpret_jax.report.plots.boxes import Ranking
from tests.support.html_pages import read_page
from tests.support.made_up_runs import HOSTILE, write_stage_3
from tests.support.paths import ROOT
from tests.support.scored import ABOUT, TASKS

# what only the page of this task has
OWN_WORDS = {'independent': 'rightly not reported', 'two': 'predicted ill', 'exclusive': 'predicted d',
             'ordinal': 'quadratic kappa', 'value': 'Bland-Altman', 'mask': 'The worst images', 'boxes': 'FROC'}


@pytest.mark.parametrize('name', TASKS)
def test_the_page_of_every_kind_of_task_is_complete(name, tmp_path):
  run = write_stage_3(tmp_path / 'run', name)
  page = read_page(write_page(run))
  result = json.loads((run / 'scores.json').read_text())['tasks'][name]
  score = result['scores'][result['headline']]
  low, high = score['interval']
  assert 'What is missing' not in page.text
  assert f'{score["value"]:.3f} 95 % interval' in page.text or score['value'] > 10
  assert f'{low:.3f} to {high:.3f}' in page.text or high > 10
  assert OWN_WORDS[name] in page.text and 'Learning rate' in page.text and 'phantoms' in page.text
  assert len([tag for tag in page.tags if tag == 'svg']) >= 5


def test_the_page_names_the_operating_points_of_the_run(tmp_path):
  run = write_stage_3(tmp_path / 'run')
  assert '0.5: no operating point' in read_page(write_page(run)).text
  (run / 'operating_points.json').write_text(json.dumps({'independent': {
    'temperature': 1.0, 'thresholds': {'mass': 0.375}, 'rule': 'youden',
    'validation': {'mass': {'sensitivity': 0.875, 'specificity': 0.625, 'n': 77}}}}))
  page = read_page(write_page(run))
  assert '0.375' in page.text and '0.875' in page.text and 'largest sum of sensitivity and specificity' in page.text


def test_an_evaluation_of_another_state_shows_no_points_of_the_best_one(tmp_path):
  run = write_stage_3(tmp_path / 'run')
  (run / 'operating_points.json').write_text(json.dumps({'independent': {
    'temperature': 1.5, 'thresholds': {'mass': 0.0078}, 'rule': 'youden',
    'validation': {'mass': {'sensitivity': 0.0039, 'specificity': 0.625, 'n': 77}}}}))
  scores = json.loads((run / 'scores.json').read_text())
  scores['tasks']['independent']['operating_points'] = {
    'rule': '', 'temperature': 1.0, 'classes': {}, 'notes': ['validation gave no operating points']}
  folder = write_stage_3(run / 'test')
  (folder / 'scores.json').write_text(json.dumps(scores))
  text = read_page(write_page(folder)).text
  assert '0.5: no operating point' in text and 'No operating point: validation gave' in text
  assert '0.008' not in text and '0.004' not in text and 'at temperature 1.5' not in text


def test_boxes_by_outcome_add_up():
  rankings = {name: Ranking(np.array([0.9, 0.5, 0.2]), np.array([True, hit, False]), 4, 10, threshold)
              for name, hit, threshold in (('nodule', True, 0.5), ('mass', False, 0.9), (detection.ANY, True, None))}
  rows = detection.make_counts(rankings).rows
  assert [row[0] for row in rows] == ['nodule', 'mass', 'all classes']
  assert [tuple(row[2:6]) for row in rows] == [('4', '2', '2', '0'), ('4', '1', '3', '0'), ('8', '3', '5', '0')]


def test_names_that_look_like_html_or_mathematics_are_text(tmp_path):
  about = {**ABOUT['independent'], 'findings': [HOSTILE, 'a_{b$', 'c & d <!--']}
  run = write_stage_3(tmp_path / 'run', about=about, notes=[HOSTILE])
  page = read_page(write_page(run))
  assert 'What is missing' not in page.text
  assert page.text.count(HOSTILE) > 3 and 'c & d <!--' in page.text and 'a_{b$' in page.text


def test_an_evaluation_of_several_tasks_has_a_section_for_each(tmp_path):
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  scores = json.loads((run / 'scores.json').read_text())
  for field in ('tasks', 'about'):
    scores[field] = {name: scores[field]['value'] for name in ('\u80ba', '\u5fc3')}
  (run / 'scores.json').write_text(json.dumps(scores))
  for name in scores['tasks']:
    (run / f'predictions_{name}.csv').write_bytes((run / 'predictions_value.csv').read_bytes())
  page = read_page(write_page(run))
  assert page.text.count('Bland-Altman') == 2 and '\u5fc3: scores' in page.text and 'scores--2' in page.find('id')


def test_a_kind_of_task_that_the_page_does_not_know_has_its_scores(tmp_path):
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  (run / 'scores.json').write_text((run / 'scores.json').read_text().replace('"regression"', '"landmarks"'))
  page = read_page(write_page(run))
  assert 'MAE (months)' in page.text and 'Bland-Altman' not in page.text and 'What is missing' not in page.text


def test_thresholds_that_are_scored_where_they_were_chosen_have_a_note(tmp_path):
  run = write_stage_3(tmp_path / 'run', 'two', images=40, split='validation')
  scores = json.loads((run / 'scores.json').read_text())
  value = {'value': 0.5, 'interval': [0.25, 0.75]}
  scores['tasks']['two']['operating_points'] = {'rule': 'youden', 'temperature': 1.5, 'notes': [], 'classes': {
    'ill': {'threshold': 0.375, 'n': 40, 'sensitivity': value, 'specificity': value}}}
  (run / 'scores.json').write_text(json.dumps(scores))
  page = read_page(write_page(run))
  assert 'The operating points were chosen on these images' in page.text and 'at temperature 1.5' in page.text
  assert 'ill 0.375 0.500 0.250 to 0.750' in page.text


def test_pages_are_made_without_jax():
  program = 'import sys; from mtpret_jax.report.page import write_page; print("jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, cwd=ROOT)
  assert done.stdout == 'False\n'


def test_what_differs_from_the_default_comes_first(tmp_path):
  run = write_stage_3(tmp_path / 'run')
  saved = json.loads((run / 'config.json').read_text())
  saved['config']['seed'] = 77
  saved['config']['tasks'] = {'pneumonia': saved['config']['tasks']['independent']}
  (run / 'config.json').write_text(json.dumps(saved))
  text = read_page(write_page(run)).text
  assert 'What differs from --config=configs/finetune.py:smoke,pneumonia' in text
  assert text.index('seed 0 77') < text.index('The whole config')


def test_a_run_that_is_not_finished_gets_a_page_that_says_so(tmp_path):
  run = write_stage_3(tmp_path / 'run')
  (run / 'scores.json').unlink()
  page = read_page(write_page(run))
  assert 'Not finished' in page.text and 'the run has not finished' in page.text and 'Learning rate' in page.text


@pytest.mark.parametrize('damages', [
  [('scores.json', '{"tasks"', 'scores.json is damaged'), ('config.json', '[]', 'config.json is damaged')],
  [('scores.json', '{"tasks": {"value": {"task": "regression"}}}', '"value" is missing'),
   ('validation.jsonl', '{"step": 3, "tasks": 5}\n', '"Validation scores" is missing: a file of the run')],
  [('predictions_value.csv', 'image_id\n', 'predictions_value.csv is damaged'),
   ('metrics.jsonl', None, 'the learning curves are missing'),
   ('pictures/captions.json', '{', 'captions.json is damaged'),
   ('examples_value.png', 'no picture', 'examples_value.png cannot be shown')],
  [('predictions_value.csv', None, 'predictions_value.csv is not there')],
  [('config.json', '{"config": {"data": 5}}', 'The config is missing'),
   ('scores.json', '{"tasks": 5}', 'not there yet')]])
def test_damaged_files_are_named_and_the_rest_is_shown(damages, tmp_path):
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  (run / 'pictures').mkdir()
  for name, content, _ in damages:
    (run / name).unlink(missing_ok=True) if content is None else (run / name).write_text(content)
  page = read_page(write_page(run))
  assert all(words in page.text for _, _, words in damages)
  assert ('Learning rate' in page.text) == ('metrics.jsonl' not in {name for name, _, _ in damages})


def test_pictures_are_embedded_in_the_order_of_their_captions(tmp_path, monkeypatch):
  monkeypatch.setattr(pictures, 'MOST', 250_000)
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  (run / 'pictures').mkdir()
  rng = np.random.default_rng(0)
  for name, side in (('small.png', 8), ('large.png', 300), ('huge.png', 600)):
    Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(run / 'pictures' / name)
  (run / 'pictures' / 'captions.json').write_text(json.dumps([
    {'file': name, 'title': name, 'caption': HOSTILE, 'task': 'value'}
    for name in ('large.png', 'small.png', 'huge.png', '../scores.json')]))
  page = read_page(write_page(run))
  kinds = [source.split(';')[0] for source in page.find('src')]
  assert kinds == ['data:image/png', 'data:image/png'] and page.text.index('large.png') < page.text.index('small.png')
  assert 'Not embedded, to keep this page small: pictures/huge.png' in page.text


def test_a_report_that_fails_does_not_fail_the_run(tmp_path, capsys, caplog):
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  (run / 'report.html').mkdir()  # the page cannot be written there
  announce(run)
  assert not capsys.readouterr().out and f'python -m mtpret_jax.report {run}' in caplog.text
  (run / 'report.html').rmdir()
  announce(run)
  assert capsys.readouterr().out == f'Report: {run / "report.html"}\n'


def test_the_command_writes_the_page_and_refuses_other_folders(tmp_path, capsys):
  run = write_stage_3(tmp_path / 'run', 'value', images=30)
  assert command.main([str(run)]) == 0
  assert capsys.readouterr().out.splitlines()[-1] == f'See {run / "report.html"}'
  assert command.main([str(run), '--out', str(tmp_path / 'page.html')]) == 0 and (tmp_path / 'page.html').is_file()
  (tmp_path / 'empty').mkdir()
  for folder in ('empty', 'nowhere'):
    assert command.main([str(tmp_path / folder)]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert folder in line


@pytest.mark.parametrize('files, finished', [
  (['pretraining/moco/mura/0/config.json'], 0),
  ([f'cells/knee/scratch/1/{seed}/config.json' for seed in (0, 1)] + ['cells/knee/scratch/1/0/scores.json'], 1)])
def test_a_table_that_has_not_ended_is_no_unknown_folder(files, finished, tmp_path, capsys):
  for name in files:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{}')
  assert command.main([str(tmp_path)]) == 2
  line, = capsys.readouterr().err.splitlines()
  assert f'a table that has no cells.csv yet (finished cells: {finished}). The table writes it at its end' in line


def test_the_list_of_mistakes_has_only_images_that_are_predicted_wrongly():
  about = {'findings': ['mass', 'cast'], 'relation': 'independent'}
  rows = {'image_id': np.array(['a', 'b', 'c']), 'patient': np.array(['p', 'q', 'r']),
          'present': np.array([[1, 0], [0, 0], [1, 1]]),
          'label_mask': np.array([[True, True], [True, True], [True, False]]),
          'score': np.array([[0.9, 0.8], [0.4, 0.1], [0.3, 0.0]])}
  table, = make_mistakes(about, rows)
  assert [row[:4] for row in table.rows] == [('a', 'p', 'cast', 'not there'), ('c', 'r', 'mass', 'there')]
  assert not make_mistakes(about, {name: values[1:2] for name, values in rows.items()})
  grades = {'findings': ['0', '1', '2'], 'relation': 'ordinal'}
  rows |= {'present': np.eye(3), 'label_mask': np.full((3, 3), True),
           'score': np.array([[0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.0, 0.0, 1.0]])}
  table, = make_mistakes(grades, rows)
  assert [row[0] for row in table.rows] == ['b']  # the first grade of image a is the likeliest, below one half
