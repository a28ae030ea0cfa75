"""Rows of predictions become columns by what they are, not by their shape; every image and every true box counts."""

import types

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from configs import finetune
from mtpret_jax.data.sources import Source
from mtpret_jax.evaluation import metrics, predict
from mtpret_jax.evaluation.metrics import score
from mtpret_jax.evaluation.predict import stack
from mtpret_jax.runtime.sharding import make_mesh
from mtpret_jax.tasks import KINDS, dataset
from tests.support.coco import average, evaluate


def test_four_classes_of_pixels_are_no_four_corners_of_boxes():
  """A (4, 4) confusion matrix per image has the shape of four boxes."""
  kind, rng = KINDS['segmentation'], np.random.default_rng(0)
  about = {'mask': ['background', 'lung', 'heart', 'clavicle']}
  masks, guesses = rng.integers(0, 4, (2, 6, 8, 8))
  rows = [kind.make_row(about, {'mask': masks}, {'mask': guesses}, index) for index in range(6)]
  columns = {'confusion': stack([row['confusion'] for row in rows], 'confusion' in kind.metrics.ragged)}
  assert columns['confusion'].shape == (6, 4, 4)
  names = {name: np.array([f'{name}{index}' for index in range(6)])
           for name in ('image_id', 'patient', 'study', 'sex', 'view', 'part')}
  result = score(kind.metrics, about, names | {'age': np.full(6, np.nan)} | columns, resamples=2)
  both, sizes = (masks == guesses)[masks == 1].sum(), (masks == 1).sum() + (guesses == 1).sum()
  assert result['scores']['Dice over pixels: lung']['value'] == pytest.approx(2 * both / sizes)


def test_boxes_stay_apart_where_every_image_has_as_many():
  column = stack([np.zeros((4, 4)), np.ones((4, 4))], ragged=True)
  assert column.shape == (2,) and column.dtype == object and column[1].shape == (4, 4)


TUBERCULOSIS = {'findings': ['tuberculosis'], 'relation': 'independent', 'box_classes': ['active', 'latent'],
                'box_negatives': ['tuberculosis']}


def make_record(index, boxes):
  """An image with so many boxes in a row, of both classes; with none it is healthy."""
  edges = np.linspace(0, 1, 2 * boxes + 1, dtype=np.float32)
  return {'image': cv2.imencode('.png', np.zeros((8, 8), np.uint8))[1].tobytes(), 'image_id': f'i{index}'.encode(),
          'objects': {'box': [np.float32([0.1, edges[2 * i], 0.6, edges[2 * i + 1]]) for i in range(boxes)],
                      'class_id': [np.int64(i % 2) for i in range(boxes)]},
          'present': np.float32([boxes > 0]), 'label_mask': np.array([True]), 'age': np.float32(np.nan),
          **{field: f'{field}{index}'.encode() for field in ('patient', 'study', 'sex', 'view', 'part', 'source')}}


@pytest.fixture
def find_boxes(monkeypatch):
  """(config, a function {split choice -> rows}) of a detector that finds every box, and one more in each image."""
  records = [make_record(index, boxes) for index, boxes in enumerate((20, 0, 1, 0, 0, 2))]
  monkeypatch.setattr(dataset, 'open_source', lambda name, data_dir, stored, split, *args, **kwargs: Source(
    name, split, '1.0.0', TUBERCULOSIS, records))
  false_box = jnp.array([[[0.7, 0.0, 0.9, 0.5]]])

  def detect(params, stats, batch):
    count, slots = batch['class_id'].shape
    found = {'boxes': jnp.concatenate([batch['boxes'], jnp.tile(false_box, (count, 1, 1))], 1),
             'class_id': jnp.pad(batch['class_id'], ((0, 0), (0, 1))),
             'score': jnp.pad(jnp.linspace(0.1, 0.5, count * slots).reshape(count, slots), ((0, 0), (0, 1)),
                              constant_values=0.3)}
    return batch, found
  monkeypatch.setattr(predict, 'make_predict', lambda *_: detect)
  config = finetune.get_config('smoke,tuberculosis')
  config.tasks.tuberculosis.size = 16
  state = types.SimpleNamespace(params={'trunk': {}, 'tuberculosis': {}}, carry={'stats': {}})

  def find(negatives):
    config.tasks.tuberculosis.negatives = negatives
    mesh = make_mesh()
    predictor = predict.make_predictor(config, 'tuberculosis', 'test', mesh)
    return predict.collect_rows(config, 'tuberculosis', 'test', state, predictor, mesh)
  assert config.tasks.tuberculosis.objects < 20
  return find


def test_all_true_boxes_and_all_examined_images_count(find_boxes, tmp_path, caplog):
  """The boxes beyond `objects` are missed where a label is cut as in training, and so are false alarms on the healthy
  where only images with boxes are scored."""
  values = {}
  for negatives, images in (('never', ['i0', 'i2', 'i5']), ('evaluation', [f'i{index}' for index in range(6)])):
    rows = find_boxes(negatives)
    assert rows['image_id'].tolist() == images
    assert [len(boxes) for boxes in rows['truth_boxes']] == [20, 1, 2] if negatives == 'never' else [20, 0, 1, 0, 0, 2]
    scores = score(KINDS['detection'].metrics, TUBERCULOSIS, rows, resamples=2)['scores']
    exact = evaluate(rows, range(len(images)), 2)
    values[negatives] = scores['AP50']['value']
    assert scores['AP50']['value'] == pytest.approx(average(exact[0]), abs=1e-14)
    path = tmp_path / f'{negatives}.csv'
    metrics.write_predictions(path, KINDS['detection'].metrics, TUBERCULOSIS, rows)
    read = metrics.read_predictions(path, KINDS['detection'].metrics, TUBERCULOSIS)
    assert score(KINDS['detection'].metrics, TUBERCULOSIS, read, resamples=2)['scores'] == scores
  assert values['evaluation'] < values['never']
  assert 'largest are kept' not in caplog.text
