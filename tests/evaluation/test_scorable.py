"""Data that cannot score a run is refused in a line that says how to predict instead."""

import json
import types

import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.evaluation import scorable
from mtpret_jax.tasks import dataset

ABOUT = {'findings': ['fracture', 'cast'], 'relation': 'independent', 'value': {'name': 'age', 'unit': 'months'},
         'mask': ['background', 'lung'], 'box_classes': []}
HOW = 'python -m mtpret_jax.predict --run=.*run IMAGES'


@pytest.fixture
def check(tmp_path, monkeypatch):
  """check(kind, of the data at hand, findings of the config, how many images have labels)."""
  def check(kind, about, findings=(), labelled=True):
    run = tmp_path / 'run'
    run.mkdir(exist_ok=True)
    task_config = ConfigDict({'kind': kind, 'dataset': 'clinic', 'findings': findings, 'among': ''})
    config = ConfigDict({'tasks': {'own': task_config}, 'data': {'dir': 'd', 'stored_size': '256', 'split': 'patient'}})
    head = {'mean': 0.0, 'deviation': 1.0} if kind == 'regression' else {
      'output_stride': 8, 'width': 8, 'dilations': (1,), 'dice': 0.0}
    (run / 'model.json').write_text(json.dumps({'tasks': {'own': {
      'kind': kind, 'dataset': 'clinic', 'about': dict(dataset.describe_task(ABOUT, task_config)), 'head': head,
      'size': 64, 'view': 64}}}))
    monkeypatch.setattr(scorable, 'open_source', lambda *_: types.SimpleNamespace(about=ABOUT | about))

    def open_task(config, name, split):
      if not labelled:
        raise ConfigError('there is no image: of 5 images, 5 with no known finding. Set --config.tasks.own.dataset')
    monkeypatch.setattr(dataset, 'open_task', open_task)
    scorable.check_labels(config, str(run), 'test')
  return check


@pytest.mark.parametrize('kind, about, findings', [
  ('classification', {}, ()), ('classification', {'findings': ['cast', 'new', 'fracture']}, ('fracture',)),
  ('regression', {'value': {'name': 'bone age', 'unit': 'months'}}, ()), ('segmentation', {}, ())])
def test_data_with_the_labels_of_the_run_is_scored(check, kind, about, findings):
  check(kind, about, findings)


@pytest.mark.parametrize('kind, about, findings, said', [
  ('classification', {'findings': []}, (), 'clinic in d has no labels for classification, so it scores nothing'),
  ('classification', {'findings': ['fractur', 'cast']}, ('fracture',),
   "has no finding 'fracture', which the run has learned, but only fractur, cast"),
  ('classification', {'findings': ['a', 'fracture', 'cast']}, (),
   "labels 'a, fracture, cast', but the run has learned 'fracture, cast'"),
  ('classification', {'findings': ['cast', 'fracture']}, (), 'the same labels in the same order'),
  ('regression', {'value': {'name': 'age', 'unit': 'years'}}, (), 'a value in years, but the run has learned a value'),
  ('segmentation', {'mask': ['background', 'left lung', 'right lung']}, (), 'left lung, right lung.*learned')])
def test_data_with_other_labels_is_refused(check, kind, about, findings, said):
  with pytest.raises(ConfigError, match=f'{said}.*{HOW}'):
    check(kind, about, findings)


def test_images_without_a_label_are_refused_without_advice_for_training(check):
  with pytest.raises(ConfigError, match=f'5 images, 5 with no known finding. To predict .*{HOW}') as refused:
    check('classification', {}, labelled=False)
  assert '--config' not in str(refused.value)


def test_a_run_of_an_earlier_version_is_not_checked(check, tmp_path):
  config = ConfigDict({'tasks': {'own': {'kind': 'classification'}}})
  scorable.check_labels(config, str(tmp_path / 'no model.json here'), 'test')
