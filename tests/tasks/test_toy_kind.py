"""A new kind of task is one file and a line: it trains, validates, scores, writes its table and draws."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import finetune
from mtpret_jax import stages
from mtpret_jax.evaluation.metrics import read_predictions
from mtpret_jax.evaluation.metrics.scoring import score
from mtpret_jax.report.abstract_run import shape_labelled_batch
from mtpret_jax.tasks import KINDS, dataset
from tests.support.toy_kind import COUNT


@pytest.fixture
def config(prepared, one_block, tmp_path, monkeypatch):
  monkeypatch.setitem(KINDS, 'count', COUNT)
  config = finetune.get_config('smoke,tuberculosis')
  config.update(trunk='one_block', workdir=str(tmp_path / 'run'), resamples=4, validations=2, save_every=2)
  config.tasks.tuberculosis.update(kind='count', size=36, batch=16, group=2, steps=4)
  config.tasks.tuberculosis.head = ConfigDict()
  config.tasks.tuberculosis.augment.size = 32
  config.data.update(dir=str(prepared), archives=str(tmp_path))  # everything is prepared already
  return config


def test_a_new_kind_of_task_trains_validates_scores_and_reports(config, real_reports, tmp_path):
  stages.run(config)
  workdir = tmp_path / 'run'
  result = json.loads((workdir / 'scores.json').read_text())['tasks']['tuberculosis']
  assert result['task'] == 'count' and result['headline'] == 'mean error' and result['scores']['mean error']['interval']
  source = dataset.open_task(config, 'tuberculosis', 'test')
  rows = read_predictions(workdir / 'predictions_tuberculosis.csv', COUNT.metrics, source.about)
  counts = [len(source.records[index]['objects']['class_id']) for index in range(len(source))]
  np.testing.assert_array_equal(rows['count'][:, 0], counts)
  again = score(COUNT.metrics, source.about, rows, resamples=4)
  assert again['scores']['mean error']['value'] == pytest.approx(result['scores']['mean error']['value'], rel=1e-6)
  lines = (workdir / 'validation.jsonl').read_text().splitlines()
  scores = [json.loads(line)['tasks']['tuberculosis'] for line in lines]
  assert [(score['headline'], score['sign']) for score in scores] == [('mean error', -1)] * 2
  assert (workdir / 'examples_tuberculosis.png').read_bytes().startswith(b'\x89PNG')


def test_the_shapes_of_a_new_kind_are_those_of_its_rows(config):
  task_config, source = config.tasks.tuberculosis, dataset.open_task(config, 'tuberculosis', 'train')
  row = dataset.make_reader(source, task_config)(source.records[0])
  told = shape_labelled_batch(task_config, source.about)
  assert {field: (values.shape, values.dtype) for field, values in row.items()} == {
    field: (shape.shape[1:], shape.dtype) for field, shape in told.items()}
