"""The printed table of test scores."""

import pathlib

from mtpret_jax.evaluation.metrics import score
from mtpret_jax.evaluation.metrics.operating_points import choose
from mtpret_jax.evaluation.operating_points import list_doubts, score_task
from mtpret_jax.evaluation.test_scores import Scored
from mtpret_jax.report.scores import describe_operating_points, describe_result, report_scores
from tests.support.scored import ABOUT, METRICS, make_rows


def test_the_table_has_every_score_in_line():
  result = score(METRICS['detection'], ABOUT['boxes'], make_rows('boxes'), resamples=5)
  first, second = describe_result(result).split('\n\n')
  lines = first.splitlines()[1:]
  assert lines[1].startswith('AP50 *') and len(lines) == len(result['scores']) + 1
  column = lines[0].index('value')
  values = [line[column:].split()[0] for line in lines[1:]]
  assert values[0] == f'{result["scores"]["AP50"]["value"]:.3f}' and 'undefined' in values
  assert len(second.splitlines()) == len(result['groups']) + 1


def test_images_without_a_label_are_counted_and_their_scores_undefined():
  rows = make_rows('mask')
  rows['confusion'][:] = 0
  words = describe_result(score(METRICS['segmentation'], ABOUT['mask'], rows, resamples=5))
  assert '90 left out, without a label' in words and 'undefined' in words


def test_the_scores_at_the_operating_points_are_a_table_of_their_own():
  about, rows = ABOUT['independent'], make_rows('independent')
  rows['present'][:, 2] = 0
  metrics = METRICS['classification']
  point = {'temperature': 1.7, **choose(metrics, about, rows, '0.9')}
  result = score(metrics, about, rows, resamples=5)
  result['operating_points'] = score_task(metrics, about, rows, point, 5)
  _, table, _ = describe_result(result).split('\n\n')
  title, head, mass, nodule, note, *doubts = table.splitlines()
  assert title == 'at thresholds chosen on validation (sensitivity of at least 0.9), at temperature 1.700:'
  assert head.split('  ')[0] == 'operating point' and 'NPV' in head and mass.startswith('mass')
  sensitivity = result['operating_points']['classes']['nodule']['sensitivity']['value']
  assert nodule[head.index('sensitivity'):].startswith(f'{sensitivity:.3f}') and sensitivity >= 0.9
  assert note == ('No operating point: effusion: validation gives no threshold, because it lacks images with the '
                  'finding or images without it.')
  assert all(line.startswith('Note: ') for line in doubts)


def test_what_the_scores_of_findings_stand_for_is_said():
  rows = make_rows('independent')
  several = describe_result(score(METRICS['classification'], ABOUT['independent'], rows, resamples=5))
  assert 'without the name of a finding are means over the findings. Without a threshold' in several
  assert 'means over the findings' not in describe_result(
    score(METRICS['segmentation'], ABOUT['mask'], make_rows('mask'), resamples=5))


def test_a_score_of_1_from_few_images_has_a_note():
  scores = {'threshold': 0.5, 'n': 10, 'sensitivity': {'value': 1.0, 'interval': (1.0, 1.0)},
            'specificity': {'value': 0.0, 'interval': (0.0, 0.0)}}
  assert list_doubts({'mass': scores}, {'mass': 8}, 'classification') == [
    'mass: the sensitivity of 1 is from 8 images, and the bootstrap interval is too narrow at 0 and 1; that of Wilson '
    'is 0.676 to 1.000', 'mass: the specificity of 0 is from 2 images, and the bootstrap interval is too narrow at 0 '
    'and 1; that of Wilson is 0.000 to 0.658']
  doubts = list_doubts({'cyst': {'n': 10, 'sensitivity': {'value': 1.0}}}, {}, 'detection')
  assert 'from 10 boxes' in doubts[0]
  assert list_doubts({'cyst': {'n': 200, 'sensitivity': {'value': 1.0}}}, {}, 'detection') == []
  points = {'rule': '', 'temperature': 1.0, 'classes': {}, 'notes': [], 'doubts': doubts}
  assert describe_operating_points(points) == [f'Note: {doubts[0]}.']


def test_a_run_without_operating_points_says_so():
  result = score(METRICS['classification'], ABOUT['two'], make_rows('two'), resamples=5)
  result['operating_points'] = score_task(METRICS['classification'], ABOUT['two'], make_rows('two'), None, 5)
  assert 'No operating point: validation gave no operating points.' in describe_result(result)


def test_notes_on_the_pretraining_are_printed_with_the_scores(capsys):
  result = score(METRICS['segmentation'], ABOUT['mask'], make_rows('mask'), resamples=5)
  results = {'split': 'test', 'split_rule': 'patient', 'step': 3, 'data': 'archives', 'tasks': {'lung': result},
             'pretraining': {'runs': [], 'weights_file': None, 'notes': ['seen before']}}
  report_scores(Scored(results, pathlib.Path('runs'), {'lung': [{'image': None}]}, {}))
  printed = capsys.readouterr().out
  assert 'Note: seen before.' in printed.splitlines()
  assert 'examples_lung.png' not in printed, 'a picture that cannot be drawn stops nothing'
