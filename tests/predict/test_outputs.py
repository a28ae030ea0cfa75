"""Places go back to the image's own pixels; files are whole or absent; other programs read them."""

import contextlib
import csv
import io
import types

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from pycocotools.coco import COCO

from mtpret_jax.data.records import decode_image, decode_mask
from mtpret_jax.predict import outputs, overlays
from mtpret_jax.tasks import KINDS
from tests.support.scored import ABOUT
from tfds_builders.common import images

SIDE = 64  # of the square that the network sees


@pytest.mark.parametrize('height, width', [(128, 192), (192, 64), (64, 256)])
def test_a_mask_is_stretched_back_exactly(height, width):
  own = np.zeros((height, width), np.uint8)
  own[height // 4:height // 2, width // 2:] = 1  # whole pixels of the square
  own[height // 2:, :width // 4] = 2
  seen = decode_mask(images.encode(own), SIDE)
  restored = outputs.restore_mask(seen.astype(np.int32), height, width)
  assert restored.dtype == np.uint8
  np.testing.assert_array_equal(restored, own)


def test_an_object_is_where_it_was_also_after_an_image_was_stored_smaller(tmp_path):
  """From the file to the square and back: the error is less than a pixel of the square."""
  height, width, box = 600, 1000, (150, 250, 450, 750)
  own = np.zeros((height, width), np.uint8)
  own[box[0]:box[2], box[1]:box[3]] = 255
  cv2.imwrite(str(tmp_path / 'own.png'), own)
  seen = decode_image(images.read_stored(tmp_path / 'own.png', 256)[0], SIDE)[..., 0]
  restored = outputs.restore_mask((seen > 127).astype(np.int32), height, width)
  rows, columns = np.flatnonzero(restored.any(1)), np.flatnonzero(restored.any(0))
  found = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
  assert (np.abs(found - box) < np.array([height, width] * 2) / SIDE).all()


def test_a_box_is_in_the_pixels_of_its_image_and_inside_it():
  # As the builders store it: the fractions of (top 30, left 20, bottom 90, right 120) in an image of 120 x 200.
  stored = np.array([[30 / 120, 20 / 200, 90 / 120, 120 / 200], [-0.1, 0.5, 0.5, 1.2]], np.float32)
  np.testing.assert_allclose(outputs.restore_boxes(stored, 120, 200), [[20, 30, 100, 60], [100, 0, 100, 60]], atol=1e-4)


def cells_of(prediction, about, thresholds):
  layout = outputs.find_layout(prediction)
  return dict(zip(layout.name_columns(about, thresholds, prediction),
                  layout.write_cells(about, thresholds, prediction), strict=True))


BOXES = {'boxes': np.float32([[0, 0, .5, .5], [.25, .5, .75, 1], [0, 0, 0, 0]]), 'class_id': np.array([0, 1, -1]),
         'score': np.float32([.8, .4, 0])}


@pytest.mark.parametrize('name, prediction, thresholds, cells', [
  ('independent', {'score': np.float32([.2, .6, .5])}, {'mass': .1, 'effusion': .5},
   {'probability: mass': .2, 'probability: nodule': .6, 'probability: effusion': .5, 'positive: mass': 1,
    'positive: effusion': 1}),
  ('independent', {'score': np.float32([.2, .6, .5])}, {}, {
    'probability: mass': .2, 'probability: nodule': .6, 'probability: effusion': .5}),
  ('ordinal', {'score': np.float32([.1, .1, .5, .3, 0])}, {}, {
    **{f'probability: {grade}': score for grade, score in zip('01234', (.1, .1, .5, .3, 0), strict=True)},
    'predicted': '2'}),
  ('two', {'score': np.float32([.6, .4])}, {'ill': .3}, {
    'probability: normal': .6, 'probability: ill': .4, 'positive: ill': 1, 'predicted': 'normal'}),
  ('value', {'value': np.float32([96.5])}, {}, {'bone age (months)': 96.5}),
  ('mask', {'mask': np.array([[0, 1], [1, 1]])}, {}, {'area: lung': .75, 'area: heart': 0}),
  ('boxes', BOXES, {'active': .5, 'latent': .5}, {
    'boxes': 2, 'highest score: active': .8, 'highest score: latent': .4, 'highest score: none': '',
    'positive: active': 1, 'positive: latent': 0}),
  ('boxes', {'count': np.float32([3])}, {}, {'count': 3})])  # a kind of task that nobody foresaw
def test_a_row_has_what_its_kind_of_task_predicts(name, prediction, thresholds, cells):
  assert cells_of(prediction, ABOUT[name], thresholds) == pytest.approx(cells)


def read_rows(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_a_table_has_all_columns_also_where_the_first_images_are_unreadable(tmp_path):
  table = outputs.Table(tmp_path / 'predictions.csv')
  table.add({'image': 'a', 'error': 'truncated'})
  table.add({'image': 'b', 'score': 0.5, 'error': ''})
  assert not table.path.exists()
  table.add({'image': 'c', 'error': 'gone'})
  table.close()
  assert read_rows(table.path) == [{'image': 'a', 'score': '', 'error': 'truncated'},
                                   {'image': 'b', 'score': '0.5', 'error': ''},
                                   {'image': 'c', 'score': '', 'error': 'gone'}]
  assert [path.name for path in tmp_path.iterdir()] == ['predictions.csv']


def test_a_table_without_a_prediction_has_the_reasons(tmp_path):
  table = outputs.Table(tmp_path / 'predictions.csv')
  table.add({'image': 'a', 'error': 'truncated'})
  table.close()
  assert read_rows(table.path) == [{'image': 'a', 'error': 'truncated'}]


def test_pycocotools_reads_the_boxes(tmp_path):
  file = outputs.CocoFile(tmp_path / 'boxes.json', ABOUT['boxes']['box_classes'])
  file.add('a "1".png', 120, 200, BOXES, {'active': .5})
  file.add('b.png', 10, 10, {**BOXES, 'class_id': np.full(3, -1)}, {})
  file.close()
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(file.path)
    again = coco.loadRes(coco.dataset['annotations'])
  assert coco.imgs[1] == {'id': 1, 'file_name': 'a "1".png', 'width': 200, 'height': 120} and set(coco.imgs) == {1, 2}
  assert {one['name'] for one in coco.cats.values()} == {'active', 'latent', 'none'}
  first, second = coco.loadAnns(coco.getAnnIds(1))
  assert first['bbox'] == [0, 0, 100, 60] and coco.cats[first['category_id']]['name'] == 'active' and first['positive']
  assert second['bbox'] == [100, 30, 100, 60] and second['score'] == pytest.approx(.4) and 'positive' not in second
  assert not coco.getAnnIds(2) and len(again.anns) == 2


@pytest.mark.parametrize('rows', [0, 1, 12])
def test_numpy_reads_the_features(tmp_path, rows):
  file = outputs.Features(tmp_path / 'features.npy')
  values = np.random.default_rng(0).normal(size=(rows, 5)).astype(np.float32)
  assert [file.add(row) for row in values] == list(range(rows))
  file.close()
  np.testing.assert_array_equal(np.load(file.path), values.reshape(rows, 5 if rows else 0))


@pytest.mark.parametrize('kind, name, prediction', [
  ('classification', 'independent', {'score': np.float32([.2, .6, .5])}), ('regression', 'value', {
    'value': np.float32([96.5])}), ('segmentation', 'mask', {'mask': np.eye(16, dtype=np.int32)}),
  ('detection', 'boxes', BOXES)])
def test_every_kind_of_task_draws_predictions_without_labels(tmp_path, kind, name, prediction):
  """The picture has the shape of the image itself, whatever its name."""
  path = tmp_path / 'folder' / 'a.png'
  overlays.write_overlay(path, KINDS[kind], ABOUT[name], np.arange(40 * 80, dtype=np.uint8).reshape(40, 80),
                         (400, 800), prediction, 'a $1_$ name')
  drawn = cv2.imread(str(path))
  grey = (drawn.min(2) == drawn.max(2)) & (drawn.min(2) < 255)
  rows, columns = np.flatnonzero(grey.mean(1) > .5), np.flatnonzero(grey.mean(0) > .3)
  assert (columns[-1] - columns[0]) / (rows[-1] - rows[0]) == pytest.approx(2, rel=.05)


def test_pictures_say_what_reaches_the_operating_point():
  def draw(kind, about, prediction, labels=types.MappingProxyType({})):
    axes = Figure().subplots()
    KINDS[kind].draw(axes, about, labels, prediction)
    return axes
  boxes = {'boxes': np.float32([[.2, .2, .6, .6]] * 2), 'class_id': np.int32([0, 0]), 'score': np.float32([.8, .3])}
  axes = draw('detection', ABOUT['boxes'] | {'thresholds': {'active': .5}}, boxes)
  assert [patch.get_linestyle() for patch in axes.patches] == ['solid', 'dashed']
  assert axes.get_xlabel() == 'operating point: active 0.50; thin and dashed: below it'
  assert axes.texts[1].get_position()[1] - axes.texts[0].get_position()[1] == pytest.approx(.05)
  truth = {'boxes': boxes['boxes'][:1], 'class_id': np.int32([1])}
  axes = draw('detection', ABOUT['boxes'], boxes, truth)
  assert axes.texts[0].get_text() == 'latent' and 'Solid: true boxes' in KINDS['detection'].legend
  axes = draw('classification', ABOUT['independent'] | {'thresholds': {ABOUT['independent']['findings'][1]: .55}}, {
    'score': np.float32([.2, .6, .5])})
  assert '0.60 (positive: threshold 0.55)' in axes.get_xlabel() and axes.get_xlabel().count('threshold') == 1


def test_a_classification_shows_beside_the_image_what_its_score_comes_from(tmp_path):
  activation = np.zeros((2, 2, 3), np.float32)
  activation[0, 1, 1] = 5  # top right, of the likeliest finding
  prediction = {'score': np.float32([.2, .6, .5]), 'activation': activation}
  path = tmp_path / 'a.png'
  about = ABOUT['independent'] | {'findings': ['mass', '${nodule$', 'effusion']}  # its name is no mathematics
  overlays.write_overlay(path, KINDS['classification'], about, np.full((40, 40), 128, np.uint8),
                         (400, 400), prediction, 'a')
  drawn = cv2.imread(str(path)).astype(int)
  assert drawn.shape[1] > 1.8 * drawn.shape[0]
  rows, columns = np.nonzero(np.ptp(drawn, axis=2) > 60)  # coloured
  assert columns.min() > .7 * drawn.shape[1] and rows.max() < .7 * drawn.shape[0]
