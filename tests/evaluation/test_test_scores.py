"""What a run reports: rounds, the best checkpoint, the test split, and that anybody can compute it again."""

import csv
import json
import logging
import pathlib
import types

import jax
import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from configs import mtpret
from configs.evaluate import get_config as get_evaluation
from mtpret_jax import stages
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import metrics, operating_points, predict, test_scores, validation
from mtpret_jax.report import multitask
from mtpret_jax.runtime import checkpoint
from mtpret_jax.runtime.loss_guard import Diverged
from mtpret_jax.runtime.sharding import make_mesh
from mtpret_jax.step import TrainState
from mtpret_jax.tasks import dataset, split_checks
from tests.support.changed import change
from tests.support.interrupted import stop_at
from tests.support.scored import METRICS

DOWN = -1  # lower is better


@pytest.fixture(scope='module')
def one_task(two_tasks, tmp_path_factory):
  """Stage 3 on bone age, six steps from random weights."""
  config = change(two_tasks, order='cyclic', rounds=1, validations=3,
                  workdir=str(tmp_path_factory.mktemp('one_task')))
  with config.unlocked():
    config.memory.anchor = 'none'
    del config.tasks['pneumonia']
    config.tasks.bone_age.steps = 6
    config.optimiser.update(learning_rate=1e-3, warmup=5 / 6)
    config.data.archives = str(tmp_path_factory.mktemp('none'))  # everything is prepared already
    config.data.datasets = ('rsna_bone_age',)
  return config


@pytest.fixture(scope='module')
def finished(one_task):
  """(workdir, the splits that were opened while training, the splits that were opened after it)."""
  opened, real = [], dataset.open_source

  def open_and_note(name, data_dir, stored, split, *args, **kwargs):
    opened.append(split)
    return real(name, data_dir, stored, split, *args, **kwargs)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dataset, 'open_source', open_and_note)
    workdir = pathlib.Path(one_task.workdir)
    stages.train_stage(one_task, workdir)
    training = list(opened)
    opened.clear()
    multitask.finish(one_task)
  return workdir, training, opened


def read_scores(workdir):
  return json.loads((workdir / 'scores.json').read_text())


def test_the_best_state_is_the_one_with_the_best_validation_score(finished):
  workdir, *_ = finished
  lines = validation.read(workdir)
  assert [line['step'] for line in lines] == [2, 4, 6]
  best = min(lines, key=lambda line: line['tasks']['bone_age']['value'])
  state, note = checkpoint.read_state(workdir, validation.BEST)
  assert state['step'] == best['step'] == read_scores(workdir)['step']
  assert not state['opt'], 'the optimiser is two thirds of the bytes, and nothing trains on from this state'
  assert note['score'] == -best['tasks']['bone_age']['value'] and best['tasks']['bone_age']['sign'] == DOWN


def test_the_test_split_is_opened_once_and_after_training(finished):
  _, training, after = finished
  assert 'test' not in training and after.count('test') == 1


def test_scores_can_be_computed_again_from_the_predictions(finished, one_task):
  workdir, *_ = finished
  result = read_scores(workdir)['tasks']['bone_age']
  with open(workdir / 'predictions_bone_age.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  test = open_source('rsna_bone_age', one_task.data.dir, '256', 'test')
  assert len(rows) == len(test) == result['images']
  about = test.about
  again = metrics.read_predictions(workdir / 'predictions_bone_age.csv', METRICS['regression'], about)
  np.testing.assert_array_equal(again['value'][:, 0], [test.records[index]['value'][0] for index in range(len(test))])
  assert np.abs(again['predicted'] - again['value']).mean() == pytest.approx(
    result['scores'][result['headline']]['value'], rel=1e-9)


def test_scores_say_what_the_trunk_was_pretrained_on(finished):
  assert read_scores(finished[0])['pretraining'] == {'runs': [], 'weights_file': None, 'notes': []}


def test_what_is_predicted_is_split_over_the_devices_as_a_step_is(one_task, monkeypatch):
  sizes = []
  monkeypatch.setattr(predict, 'make_predict', lambda *_: lambda params, stats, batch: (
    sizes.append(jax.sharding.get_abstract_mesh().size), (batch, {'value': batch['value']}))[1])
  mesh = make_mesh()
  predictor = predict.make_predictor(one_task, 'bone_age', 'validation', mesh)
  state = types.SimpleNamespace(params={'trunk': {}, 'bone_age': {}}, carry={'stats': {}})
  predict.collect_rows(one_task, 'bone_age', 'validation', state, predictor, mesh)
  assert sizes == [8]


def test_an_evaluation_gives_the_scores_of_the_run(finished, tmp_path):
  workdir, *_ = finished
  config = get_evaluation()
  config.update(run=str(workdir), workdir=str(tmp_path), resamples=4)
  test_scores.evaluate_run(config)
  assert read_scores(tmp_path)['tasks'] == read_scores(workdir)['tasks']
  assert (tmp_path / 'predictions_bone_age.csv').read_text() == (workdir / 'predictions_bone_age.csv').read_text()


def test_no_scores_are_written_unless_the_predictions_are(finished, tmp_path, monkeypatch):
  def fail(*args):
    raise OSError('no space left')
  monkeypatch.setattr(metrics, 'write_predictions', fail)
  config = get_evaluation()
  config.update(run=str(finished[0]), workdir=str(tmp_path), resamples=2)
  with pytest.raises(OSError, match='no space left'):
    test_scores.evaluate_run(config)
  assert not (tmp_path / 'scores.json').exists(), 'a run with this file counts as finished'


def test_a_finished_run_is_known_as_one_whatever_the_evaluation_asks_for(finished, tmp_path, caplog):
  workdir, *_ = finished
  config = get_evaluation()
  config.update(run=str(workdir), workdir=str(tmp_path), resamples=2)
  test_scores.evaluate_run(config)
  assert 'is not finished' not in caplog.text
  (workdir / 'scores.json').rename(tmp_path / 'scores.json')
  try:
    test_scores.evaluate_run(config)
  finally:
    (tmp_path / 'scores.json').rename(workdir / 'scores.json')
  assert 'is not finished' in caplog.text


def test_a_run_of_several_tasks_scores_each_with_its_own_statistics(two_tasks_run, two_tasks, tmp_path):
  workdir, _ = two_tasks_run
  config = get_evaluation()
  config.update(run=str(workdir), workdir=str(tmp_path), split='train', resamples=1)
  test_scores.evaluate_run(config)
  result = read_scores(tmp_path)['tasks']['pneumonia']
  source = open_source('kermany_pneumonia', two_tasks.data.dir, '256', 'train')
  rows = metrics.read_predictions(tmp_path / 'predictions_pneumonia.csv', METRICS['classification'],
                                  source.about | {'findings': ['pneumonia']})
  assert result['scores']['AUC']['value'] == pytest.approx(roc_auc_score(rows['present'][:, 0], rows['score'][:, 0]))
  noted = [note.split(':')[0] for note in read_scores(tmp_path)['notes'] if 'have no width' in note]
  assert noted == [f'task {name}' for name in two_tasks.tasks], 'with one resample, every interval is a point'


@pytest.fixture(scope='module')
def scored_pneumonia(two_tasks, two_tasks_run, tmp_path_factory):
  """Workdir of a run of stage 3 whose best state is the last one of `two_tasks_run`, scored at a temperature."""
  _, state = two_tasks_run
  config = change(two_tasks, order='cyclic', rounds=1, temperature=True,
                  workdir=str(tmp_path_factory.mktemp('pneumonia')))
  with config.unlocked():
    del config.tasks['bone_age']
    config.data.datasets = ('kermany_pneumonia',)
  workdir = pathlib.Path(config.workdir)
  workdir.mkdir(exist_ok=True)
  (workdir / 'config.json').write_text(json.dumps({'config': config.to_dict()}))
  validation.save_if_best(workdir, state, int(state.step), 0.5, 0)
  return config, test_scores.score_best(config)


def test_the_test_split_is_scored_at_the_operating_point_and_temperature_of_validation(scored_pneumonia, two_tasks):
  config, _ = scored_pneumonia
  workdir = pathlib.Path(config.workdir)
  point = json.loads((workdir / 'operating_points.json').read_text())['pneumonia']
  assert set(point) == {'temperature', 'thresholds', 'rule', 'validation'} and point['rule'] == 'youden'
  assert point['temperature'] not in (0, 1) and list(point['thresholds']) == ['pneumonia']
  result = read_scores(workdir)['tasks']['pneumonia']['operating_points']
  scores = result['classes']['pneumonia']
  assert result['temperature'] == point['temperature'] and not result['notes']
  assert scores['threshold'] == point['thresholds']['pneumonia']
  about = open_source('kermany_pneumonia', two_tasks.data.dir, '256', 'test').about | {'findings': ['pneumonia']}
  rows = metrics.read_predictions(workdir / 'predictions_pneumonia.csv', METRICS['classification'], about)
  present, positive = rows['present'][:, 0], rows['score'][:, 0] >= scores['threshold']
  assert scores['sensitivity']['value'] == pytest.approx(recall_score(present, positive))
  assert scores['n'] == len(present)


def test_an_evaluation_uses_the_operating_points_of_the_best_state_only(scored_pneumonia, tmp_path):
  config, _ = scored_pneumonia
  asked = get_evaluation()
  asked.update(run=config.workdir, workdir=str(tmp_path), split='validation', resamples=2)
  test_scores.evaluate_run(asked)
  point = json.loads((pathlib.Path(config.workdir) / 'operating_points.json').read_text())['pneumonia']
  found = read_scores(tmp_path)['tasks']['pneumonia']['operating_points']['classes']['pneumonia']
  for name in ('sensitivity', 'specificity'):
    assert found[name]['value'] == point['validation']['pneumonia'][name], 'chosen on these images'


def test_an_evaluation_may_flip_and_then_has_no_operating_points(scored_pneumonia, tmp_path):
  config, scored = scored_pneumonia
  asked = get_evaluation()
  asked.update(run=config.workdir, workdir=str(tmp_path), flips='on', resamples=2)
  test_scores.evaluate_run(asked)
  result = read_scores(tmp_path)['tasks']['pneumonia']
  assert result['scores']['ECE']['value'] != scored.results['tasks']['pneumonia']['scores']['ECE']['value']
  assert not result['operating_points']['classes'] and read_scores(tmp_path)['config']['flips']


def test_an_evaluation_does_not_flip_labels_of_one_side(scored_pneumonia, tmp_path, monkeypatch):
  monkeypatch.setattr(split_checks, 'list_sided_names', lambda *_: ['left lung'])
  asked = get_evaluation()
  asked.update(run=scored_pneumonia[0].workdir, workdir=str(tmp_path), flips='on', resamples=2)
  with pytest.raises(ConfigError, match="'left lung' of kermany_pneumonia names one side.*try --config.flips=off"):
    test_scores.evaluate_run(asked)
  assert not (tmp_path / 'scores.json').exists()


def test_regression_has_no_operating_points(finished):
  workdir, *_ = finished
  assert not (workdir / operating_points.FILE).exists()
  assert 'operating_points' not in read_scores(workdir)['tasks']['bone_age']


def test_validation_and_the_best_state_have_the_averaged_weights(one_task, tmp_path, monkeypatch):
  config, seen = change(one_task, **{'optimiser.ema': 0.9}), []
  monkeypatch.setattr(validation.predict, 'score_tasks', lambda config, state, *args: (
    seen.append(state), {'bone_age': (None, None)})[1])
  monkeypatch.setattr(validation.predict, 'find_headline', lambda result: ('MAE', 1.0, DOWN))
  state = TrainState(np.array(2), {'trunk': np.zeros(3)}, {'stats': np.zeros(3), 'average': {
    'params': {'trunk': np.ones(3)}, 'stats': np.full(3, 2.0), 'updates': {'trunk': np.array(2)}}}, {})
  validation.make_validate(config, tmp_path, 0)(state, 2)
  assert seen[0].params['trunk'].tolist() == [1, 1, 1] and seen[0].carry['stats'].tolist() == [2, 2, 2]
  best, _ = checkpoint.read_state(tmp_path, validation.BEST)
  assert best['params']['trunk'].tolist() == [1, 1, 1] and set(best['carry']) == {'stats'}


def test_a_picture_that_cannot_be_drawn_stops_no_validation(one_task, tmp_path, monkeypatch, caplog):
  def fail(*args):
    raise ValueError('no formula')
  monkeypatch.setattr(predict, 'collect_examples', lambda *args: [])
  validation.show_examples(one_task, tmp_path, None, 2, {
    ('bone_age', 'validation'): types.SimpleNamespace(source=range(9))}, fail)
  assert 'the picture predictions/bone_age is missing' in caplog.text


@pytest.mark.parametrize('content', ['{', '[]', '{"pneumonia": {"temperature": 0, "thresholds": {}, "rule": ""}}',
                                     '{"pneumonia": {"temperature": 1, "thresholds": {"a": "b"}, "rule": ""}}'])
def test_damaged_operating_points_are_left_out_with_a_warning(content, tmp_path, caplog):
  assert operating_points.read(tmp_path) == {} and not caplog.text
  (tmp_path / operating_points.FILE).write_text(content)
  assert operating_points.read(tmp_path) == {} and 'is damaged' in caplog.text


@pytest.mark.parametrize('fields, said', [
  (dict(run='nowhere'), 'is not the workdir of a run'),
  (dict(state='worst'), 'unknown state .worst.: choose one of best, last'),
  (dict(split='dev'), 'unknown split .dev.: choose one of train, validation, test'),
  ({'data': {'dir': 'nowhere'}}, 'rsna_bone_age is not prepared under nowhere.*--config.data.dir=<folder>')])
def test_an_evaluation_that_cannot_be_is_refused(fields, said, finished, tmp_path):
  config = get_evaluation()
  config.update(run=str(finished[0]), workdir=str(tmp_path))
  config.update(fields)
  with pytest.raises(ConfigError, match=said):
    test_scores.evaluate_run(config)


def test_an_evaluation_without_a_workdir_goes_into_the_runs_and_leaves_its_scores_alone(finished):
  workdir, *_ = finished
  before = (workdir / 'scores.json').read_text()
  config = get_evaluation()
  config.update(run=str(workdir), split='validation', resamples=2)
  test_scores.evaluate_run(config)
  assert read_scores(workdir / 'validation')['split'] == 'validation'
  assert (workdir / 'scores.json').read_text() == before


def test_a_run_of_several_tasks_has_no_best_since_their_scores_have_no_common_unit(two_tasks_run):
  workdir, _ = two_tasks_run
  assert len(validation.read(workdir)) == 2 and not (workdir / validation.BEST).exists()


def test_a_resumed_run_keeps_its_best(one_task, finished, tmp_path, monkeypatch):
  """Step 2 is made the best there is; what follows cannot beat it."""
  real = validation.predict.find_headline
  calls = iter([1.0, 2.0, 3.0, 4.0, 5.0])
  monkeypatch.setattr(validation.predict, 'find_headline', lambda result: (real(result)[0], next(calls), DOWN))
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, 3)
    stages.train_stage(one_task, tmp_path)
  stages.train_stage(one_task, tmp_path)
  state, note = checkpoint.read_state(tmp_path, validation.BEST)
  assert (int(state['step']), note['score']) == (2, -1.0)
  assert [line['step'] for line in validation.read(tmp_path)] == [2, 4, 6]


def test_a_run_whose_patience_is_over_ends_there_also_when_it_resumes(
    one_task, finished, tmp_path, monkeypatch, caplog):
  """Step 2 is made the best there is. The batches and the learning rates are those of a run without patience."""
  real = validation.predict.find_headline
  calls = iter([1.0, 2.0, 3.0])
  monkeypatch.setattr(validation.predict, 'find_headline', lambda result: (real(result)[0], next(calls), DOWN))
  impatient = change(one_task, patience=1)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, 3)
    stages.train_stage(impatient, tmp_path)
  with caplog.at_level(logging.INFO):
    assert int(stages.train_stage(impatient, tmp_path).step) == 4
  assert ('the run ends early, at step 4 of 6: the validation score has not improved since step 2 (validations since '
          'then: 1, patience: 1). To go on, repeat the command with a larger --config.patience') in caplog.text
  assert json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])['step'] == 4
  with monkeypatch.context() as patch:
    stop_at(patch, 0)  # as after a kill right after the decision: no batch may be drawn
    assert int(stages.train_stage(impatient, tmp_path).step) == 4
  assert checkpoint.read_state(tmp_path)[0]['step'] == 4
  stages.train_stage(change(one_task, patience=2), tmp_path)
  assert [line['step'] for line in validation.read(tmp_path)] == [2, 4, 6]
  jax.tree.map(np.testing.assert_array_equal, checkpoint.read_state(tmp_path)[0],
               checkpoint.read_state(finished[0])[0])


def test_patience_counts_validations_since_the_first_best_up_to_a_step(tmp_path):
  for step, value in enumerate([None, 0.5, 0.7, 0.7, None, 0.6]):
    validation.write(tmp_path, step, {'task': {'headline': 'AUC', 'value': value, 'sign': 1}})
  ends = {patience: [step for step in range(6) if validation.explain_early_end(tmp_path, step, patience)]
          for patience in range(5)}
  assert ends == {0: [], 1: [3, 4, 5], 2: [4, 5], 3: [5], 4: []}
  assert validation.describe_ties(tmp_path, 6) == (
    '2 of 6 validations have the best score, 0.7000, so the last of them counts (validation images: 6)')
  validation.write(tmp_path, 0, {'task': {'headline': 'months', 'value': 9.0, 'sign': DOWN}})
  validation.write(tmp_path, 1, {'task': {'headline': 'months', 'value': 8.0, 'sign': DOWN}})
  assert not validation.explain_early_end(tmp_path, 1, patience=1), 'lower is better'
  assert not validation.describe_ties(tmp_path, 6)


def test_a_run_that_starts_anew_forgets_the_best_of_another(one_task, tmp_path):
  state = TrainState(np.array(5), {}, {}, {})
  validation.save_if_best(tmp_path, state, 5, 1e9, 0)
  validation.write(tmp_path, 5, {})
  validation.make_validate(one_task, tmp_path, 3)
  assert (tmp_path / validation.BEST).exists() and validation.read(tmp_path)
  validation.make_validate(one_task, tmp_path, 0)
  assert not (tmp_path / validation.BEST).exists() and not validation.read(tmp_path)


@pytest.mark.parametrize('scores, best', [
  ((None, None, None), 6), ((None, 0.5, None), 4), ((0.5, None, None), 2), ((0.5, 0.5, 0.4), 4), ((None, 0.2, 0.3), 6),
  ((float('nan'), float('nan'), 0.1), 6), ((float('nan'), None, float('nan')), 6)])
def test_the_best_state_is_the_last_with_the_best_score_and_the_last_one_if_no_score_is_defined(
    scores, best, one_task, tmp_path, monkeypatch):
  values = iter(scores)
  monkeypatch.setattr(validation.predict, 'score_tasks', lambda *args: {'bone_age': (None, None)})
  monkeypatch.setattr(validation.predict, 'find_headline', lambda result: ('AUC', next(values), 1))
  validate = validation.make_validate(change(one_task, patience=1) if best == 6 and None in scores else one_task,
                                      tmp_path, 0)
  for step in (2, 4, 6):
    state = TrainState(np.array(step), {}, {}, {})
    assert not validate(state, step), 'nothing shows that the run has stopped to improve'
  state, metadata = checkpoint.read_state(tmp_path, validation.BEST)
  assert state['step'] == best
  assert bool(test_scores.list_state_notes(metadata)) == (not any(score and score == score for score in scores))


def test_predictions_that_are_not_finite_leave_validation_undefined_and_stop_a_test(one_task, monkeypatch, caplog):
  rows = METRICS['regression'].columns
  monkeypatch.setattr(predict, 'make_predictor', lambda *args: predict.Predictor(
    types.SimpleNamespace(about={'value': {'name': 'age', 'unit': 'months'}}), None, None))
  monkeypatch.setattr(predict, 'collect_rows', lambda *args: {
    **{name: np.array(['a', 'b']) for name in ('image_id', 'patient', 'study', 'sex', 'view', 'part')},
    'age': np.full(2, np.nan), **{name: np.full((2, 1), np.nan) for name in rows}})
  (_, result), = predict.score_tasks(one_task, None, 'validation', {}).values()
  assert predict.find_headline(result) == (result['headline'], None, DOWN) and result['images'] == 2
  assert 'not finite for 2 of 2 images' in caplog.text
  with pytest.raises(Diverged, match="^tasks.bone_age, test split: 'predicted' is not finite"):
    predict.score_tasks(one_task, None, 'test', {})


def test_a_run_is_finished_once_it_has_reported_with_the_same_config(one_task, finished):
  assert test_scores.is_finished(one_task)
  assert test_scores.is_finished(change(one_task, extend=True)), 'it would not get longer'
  assert not test_scores.is_finished(change(one_task, **{'tasks.bone_age.steps': 8}))
  assert not test_scores.is_finished(change(one_task, seed=1))
  assert not test_scores.is_finished(change(one_task, workdir=one_task.workdir + '_other'))


def test_several_tasks_report_their_rounds_and_leave_the_test_splits_alone(two_tasks, two_tasks_run, monkeypatch):
  workdir, _ = two_tasks_run
  monkeypatch.setattr(test_scores, 'score_split', None)
  config = change(two_tasks, workdir=str(workdir))
  multitask.finish(config)
  rounds = json.loads((workdir / 'rounds.json').read_text())
  assert [line['step'] for line in rounds['rounds']] == [6, 12] and list(rounds['tasks']) == ['bone_age', 'pneumonia']


@pytest.mark.parametrize('variant', ['embedded', 'smoke'])
def test_the_recipe_pretrains_before_it_learns_tasks_and_fine_tunes_last(variant):
  stages = list(mtpret.get_config(variant).stages)
  assert stages[:2] == ['pretrain', 'continual'] and len(stages) == 6


