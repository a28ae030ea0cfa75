"""A loaded model predicts what evaluation gives for the same images, whatever it is loaded from."""

import copy
import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

import mtpret_jax as mt
from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data.records import decode_grey, decode_image
from mtpret_jax.data.sources import open_source
from mtpret_jax.evaluation import predict, probe
from mtpret_jax.evaluation.metrics.temperature import apply_temperature
from mtpret_jax.export import stablehlo
from mtpret_jax.models.torchvision_weights import export_trunk
from mtpret_jax.objectives.multitask import TRUNK
from mtpret_jax.predict import batches, reading
from mtpret_jax.predict.model import FEW, Model
from mtpret_jax.runtime.sharding import make_mesh
from tests.support import drawn_models, small_runs

pytestmark = pytest.mark.usefixtures('one_block')

BATCH = 8  # a row for each device of the tests
TASK = drawn_models.TASK
NOISE = np.random.default_rng(0).integers(0, 255, (5, 90, 70), np.uint8)


def draw(kind, **options):
  return drawn_models.make_trained(kind, trunk='resnet18' if kind == 'detection' else small_runs.TRUNK, **options)


@pytest.fixture(scope='module')
def classifier():
  return Model([draw('classification')])


@pytest.fixture(scope='module')
def files(prepared, tmp_path_factory):
  """(a split with ten radiographs, files with their pixels)."""
  source, folder = open_source('montgomery_cxr', prepared, '256', 'train'), tmp_path_factory.mktemp('files')
  source = dataclasses.replace(source, records=[source.records[place] for place in range(10)])
  paths = [folder / f'{place}.png' for place in range(10)]
  for path, record in zip(paths, source.records, strict=True):
    path.write_bytes(record['image'])
  return source, paths


@pytest.mark.parametrize('kind', drawn_models.ABOUT)
def test_predictions_of_files_are_those_of_evaluation_for_records(kind, files):
  """Bit by bit: the same program on the same batches, and a padded one."""
  (source, paths), trained, mesh = files, draw(kind), make_mesh()
  trained.config.tasks[TASK].batch = BATCH
  fitted = trained.tasks[TASK]
  predictor = predict.Predictor(
    source, lambda record: {'image': decode_image(record['image'], fitted.size)},
    predict.compile_predict(trained.config, TASK, fitted.make_model(), mesh))
  state = types.SimpleNamespace(params=trained.params, carry={'stats': trained.stats})
  expected = [{field: rows[index] for field, rows in predictions.items()} for _, count, _, predictions
              in predict.predict_batches(trained.config.tasks[TASK], 'test', state, TASK, predictor, mesh)
              for index in range(count)]
  model = Model([trained])
  found = list(model.iterate(reading.read_images(paths, model.stored_size)))
  assert len(found) == len(expected) == len(paths) and model.batch == BATCH
  for (one, prediction), wanted, path in zip(found, expected, paths, strict=True):
    assert one.name == str(path) and prediction.keys() == wanted.keys()
    for field, values in prediction.items():
      np.testing.assert_array_equal(values, wanted[field], err_msg=field)
  assert any(np.ptp([prediction[field] for prediction in expected]) for field in expected[0])


@pytest.mark.parametrize('task', ['bone_age', 'pneumonia'])
def test_a_run_predicts_for_the_files_of_an_archive_what_evaluation_gives(task, two_tasks, two_tasks_run, archives):
  """Each task with its own running statistics."""
  workdir, state = two_tasks_run
  mesh = make_mesh()
  predictor = predict.make_predictor(two_tasks, task, 'validation', mesh)
  rows = predict.collect_rows(two_tasks, task, 'validation', state, predictor, mesh)
  folder = archives / two_tasks.tasks[task].dataset
  paths = [next(path for path in folder.rglob('*') if path.is_file() and path.with_suffix('').as_posix().endswith(
    f'/{image_id}')) for image_id in rows['image_id']]
  field, column = {'bone_age': ('value', 'predicted'), 'pneumonia': ('score', 'score')}[task]
  model = mt.load(workdir, task=task)
  np.testing.assert_array_equal(model.predict(paths, batch=two_tasks.tasks[task].batch)[field], rows[column])
  assert (model.kind, model.task) == (two_tasks.tasks[task].kind, task)


def test_a_run_of_several_tasks_asks_for_one(two_tasks_run):
  model = mt.load(str(two_tasks_run[0]))
  assert list(model.tasks) == ['bone_age', 'pneumonia'] and "state='last', step=12" in repr(model)
  for ask in (model.predict, model.embed):
    with pytest.raises(ConfigError, match='several tasks: choose one with task=..., of bone_age, pneumonia'):
      ask(NOISE)
  with pytest.raises(ConfigError, match="no task 'lung': choose one of bone_age, pneumonia"):
    mt.load(two_tasks_run[0], task='lung')
  with pytest.raises(ConfigError, match='has no best state'):
    mt.load(two_tasks_run[0], state='best')
  with pytest.raises(ConfigError, match="unknown state 'newest': choose one of best, last"):
    mt.load(two_tasks_run[0], state='newest')


def test_the_data_of_a_run_is_not_needed(two_tasks_run, tmp_path):
  workdir = shutil.copytree(two_tasks_run[0], tmp_path / 'run')
  saved = json.loads((workdir / 'config.json').read_text())
  saved['config']['data'].update(dir='/nowhere', archives='/nowhere')
  (workdir / 'config.json').write_text(json.dumps(saved))
  one, other = (mt.load(path, task='pneumonia').predict(NOISE[0])['score'] for path in (workdir, two_tasks_run[0]))
  np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('path, reason', [
  ('absent', 'absent'), ('.', 'config.json'), ('file.safetensors', 'does not hold the weights of a trunk'),
  ([], 'no run given')])
def test_what_is_no_model_is_named(path, reason, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file.safetensors').write_bytes(b'nothing')
  with pytest.raises(ConfigError, match=reason):
    mt.load(path)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(ConfigError, match=str(tmp_path / 'run')):
    mt.load('~/run')


def test_features_are_those_of_the_probe():
  trained = draw('trunk')
  images = np.stack([decode_stretched(image, drawn_models.SIZE) for image in NOISE])
  wanted = probe.make_embedder(trained.config)(trained.params[TRUNK], trained.stats[TRUNK], images)
  model = Model([trained])
  found = model.embed(NOISE)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  assert found.dtype == np.float32 and np.ptp(found, axis=0).max() > 1e-3
  with pytest.raises(ConfigError, match='has no head.*can embed images, but not predict'):
    model.predict(NOISE)


def decode_stretched(image, size):
  import cv2
  return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)[..., None]


def test_a_file_of_torchvisions_names_embeds_as_the_trunk_it_came_from(tmp_path):
  trained = draw('trunk')
  export_trunk(trained.params[TRUNK], trained.stats[TRUNK], tmp_path / 'trunk.safetensors', channels=3)
  trained.config.data.size = trained.config.augment.size = 64
  found = mt.load(tmp_path / 'trunk.safetensors', size=64).embed([NOISE[0]])
  np.testing.assert_allclose(found, Model([trained]).embed([NOISE[0]]), rtol=1e-4, atol=1e-5)


def test_one_image_gives_what_it_gives_among_others(classifier):
  several = classifier.predict([*NOISE])['score']
  assert several.shape == (5, 3) and several.dtype == np.float32
  for single in (NOISE[1], NOISE[1][..., None], np.repeat(NOISE[1][..., None], 3, 2), [NOISE[1]], NOISE[1] / 255):
    np.testing.assert_allclose(classifier.predict(single)['score'], several[1:2], rtol=1e-5)
  np.testing.assert_array_equal(classifier.predict(NOISE)['score'], several)  # an array of images
  with pytest.raises(ValueError, match='no images given'):
    classifier.predict([])


def test_a_model_is_compiled_once_for_each_size_of_batch():
  model = Model([draw('classification')])
  for count in (1, 2, 5, 8, 20):
    model.predict([NOISE[0]] * count, batch=FEW)
  compiled, *_ = model.predictors[0]
  assert compiled._cache_size() == 1
  assert [model.choose_batch(count) for count in (1, 2, FEW, FEW + 1)] == [1, FEW, FEW, max(model.batch, FEW)]


def test_unreadable_images_keep_their_place(classifier):
  bad = reading.Unreadable('nothing')
  good = [reading.read_image(image, '256') for image in NOISE]
  items = [bad, *good[:3], bad, bad, *good[3:], *good, *good, bad]
  found = list(classifier.iterate(items, batch=BATCH))
  assert [one for one, _ in found] == items
  assert [prediction is None for _, prediction in found] == [item is bad for item in items]
  rows = np.stack([prediction['score'] for _, prediction in found if prediction])
  np.testing.assert_allclose(rows, np.tile(classifier.predict(NOISE)['score'], (3, 1)), rtol=1e-5)
  assert list(classifier.iterate([bad, bad])) == [(bad, None), (bad, None)]
  assert not list(classifier.iterate([]))
  with pytest.raises(reading.Unreadable, match=r'image 1 \(absent.png\): unreadable file: No such file'):
    classifier.predict([NOISE[0], 'absent.png'])


def test_doubtful_images_are_warned_of(classifier):
  with pytest.warns(UserWarning, match='image 1 .*: every pixel has the same value'):
    classifier.predict([NOISE[0], np.zeros((40, 40), np.uint8)])


def test_operating_points_of_the_run_are_used(classifier, tmp_path):
  """As evaluation does: probabilities at the temperature, and positive from the threshold on."""
  plain = classifier.predict(NOISE)['score']
  assert 'positive' not in classifier.predict(NOISE) and not classifier.thresholds
  thresholds = dict(zip(drawn_models.ABOUT['classification']['findings'], (0.0, 0.5, 1.1), strict=True))
  (tmp_path / 'operating_points.json').write_text(json.dumps({TASK: {
    'temperature': 2.0, 'thresholds': thresholds, 'rule': 'youden', 'validation': {}}}))
  trained = dataclasses.replace(draw('classification'), run=tmp_path)
  model = Model([trained])
  found = model.predict(NOISE)
  np.testing.assert_array_equal(found['score'], apply_temperature(model.about, plain, 2.0))
  np.testing.assert_array_equal(found['positive'], found['score'] >= np.array([[0, 0.5, 1.1]]))
  assert model.thresholds == thresholds
  assert not Model([dataclasses.replace(trained, chosen='last')]).thresholds, 'they belong to the best state'


def test_of_two_that_exclude_each_other_the_one_with_an_operating_point_may_be_positive(tmp_path):
  about = {'findings': ['normal', 'pneumonia']}
  trained = dataclasses.replace(draw('classification', about=about, relation='exclusive'), run=tmp_path)
  scores = Model([trained]).predict(NOISE)['score']
  threshold = float(np.median(scores[:, 1]))  # one score is exactly this
  (tmp_path / 'operating_points.json').write_text(json.dumps({TASK: {
    'temperature': 1.0, 'thresholds': {'pneumonia': threshold}, 'rule': 'youden', 'validation': {}}}))
  positive = Model([trained]).predict(NOISE)['positive']
  np.testing.assert_array_equal(positive[:, 1], scores[:, 1] >= threshold)
  assert positive.sum(0).tolist() == [0, 3]


@pytest.mark.parametrize('kind, field', [('classification', 'score'), ('regression', 'value')])
def test_an_ensemble_gives_the_mean(kind, field):
  one, other = draw(kind), draw(kind)
  other.params[TASK]['out']['bias'] = other.params[TASK]['out']['bias'] + 1
  found = [Model(members).predict(NOISE)[field] for members in ([one], [other], [one, other])]
  np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, rtol=1e-6)
  assert np.abs(found[0] - found[1]).min() > 1e-3
  with pytest.raises(ConfigError, match='no common axes'):
    Model([one, other]).embed(NOISE)


def test_an_ensemble_of_detectors_fuses_their_boxes():
  trained = draw('detection', make_leaf=drawn_models.make_zeros)
  box, empty = [0.1, 0.1, 0.5, 0.5], [0, 0, 0, 0]
  found = Model([trained, trained, trained]).combine([
    {'boxes': np.float32([[box, empty]]), 'class_id': np.int32([[1, -1]]), 'score': np.float32([[score, 0]])}
    for score in (0.9, 0.6, 0.3)])
  np.testing.assert_allclose(found['boxes'], [[box, empty]])
  np.testing.assert_allclose(found['score'], [[0.6, 0]], rtol=1e-6)
  assert found['class_id'].tolist() == [[1, -1]]


def test_an_ensemble_of_segmenters_gives_the_likeliest_class_by_the_mean_probability():
  """Here of two that see images of different sizes; the mask has the size of the larger ones."""
  one, other = draw('segmentation'), draw('segmentation')
  other = dataclasses.replace(other, config=copy.deepcopy(other.config), tasks={TASK: dataclasses.replace(
    other.tasks[TASK], size=90, view=80)})
  other.config.tasks[TASK].augment.size = 80
  model = Model([one, other])
  found = model.predict(NOISE)['mask']
  readings = [reading.read_image(image, model.stored_size) for image in NOISE]
  small, large = jax.device_get(model.compute_predictions({size: batches.stack(
    [each.image for each in readings], size, FEW) for size in (drawn_models.SIZE, 90)}))
  small, large = (jax.nn.softmax(each['logits'][:5]) for each in (small, large))
  assert (small.shape, large.shape) == ((5, 64, 64, 3), (5, 80, 80, 3))
  mean = (jax.image.resize(small, large.shape, 'bilinear') + large) / 2
  assert found.dtype == np.int32 and (found != mean.argmax(-1)).mean() < 1e-3 and np.ptp(found)


def test_only_what_can_be_averaged_is():
  for members, said in (
      ([draw('classification'), draw('classification', relation='exclusive')],
       "because relation is 'independent' in one and 'exclusive' in the other"),
      ([draw('segmentation'), draw('regression')], "kind is 'segmentation' in one and 'regression' in the other"),
      ([draw('segmentation'), draw('segmentation', about={'mask': ['background', 'lung']})], 'because mask is'),
      ([draw('trunk')] * 2, 'has no task or several')):
    with pytest.raises(ConfigError, match=said):
      Model(members)


def test_pixels_of_a_reading_are_those_of_the_record(files):
  source, paths = files
  for path, record in zip(paths, source.records, strict=True):
    np.testing.assert_array_equal(reading.read_image(path, '256').image, decode_grey(record['image']))


@pytest.mark.parametrize('kind', ['classification', 'segmentation'])
def test_an_export_to_stablehlo_predicts_as_its_run(kind, tmp_path):
  trained = draw(kind)
  stablehlo.write(trained, TASK, tmp_path)
  model, run = mt.load(tmp_path), Model([trained])
  found, wanted = model.predict([*NOISE]), run.predict([*NOISE])
  assert found.keys() == wanted.keys() and (model.kind, model.about) == (kind, trained.tasks[TASK].about)
  for field, values in found.items():
    np.testing.assert_allclose(values, wanted[field], rtol=1e-4, atol=1e-5)
  if kind == 'classification':
    np.testing.assert_allclose(model.embed(NOISE[0]), run.embed(NOISE[0]), rtol=1e-4, atol=1e-5)
  assert (model.task, model.state, model.step) == (TASK, 'best', 12)
  mt.load(tmp_path, task=TASK, state='best')
  with pytest.raises(ConfigError, match=f"no task 'lung': choose one of {TASK}"):
    mt.load(tmp_path, task='lung')
  with pytest.raises(ConfigError, match='has only the best state of its run: .*--state=last'):
    mt.load(tmp_path, state='last')
  (tmp_path / stablehlo.FILE).write_bytes(b'damaged')
  with pytest.raises(ConfigError, match='no model that this version of jax can read'):
    mt.load(tmp_path)
