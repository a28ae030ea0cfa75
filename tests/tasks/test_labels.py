"""Labelled records: fixed shapes, nothing invented for what is unknown, masks and boxes where the image has them."""

import logging

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.config.errors import ConfigError
from mtpret_jax.data import records
from mtpret_jax.data.sources import Source, open_source
from mtpret_jax.tasks.dataset import read_row
from tests.support.usable import keep_usable
from tfds_builders.common import label_columns

SIZE = 64
ABOUT = {'findings': ['nodule', 'mass'], 'relation': 'independent', 'mask': ['background', 'lung', 'heart'],
         'box_classes': ['active', 'latent']}


def encode(pixels):
  return cv2.imencode('.png', pixels)[1].tobytes()


def make_record(**fields):
  return {'image': encode(np.zeros((8, 8), np.uint8)), 'source': b'atlas', 'image_id': b'a7', **fields}


def configure(kind, size=SIZE, objects=3):
  return ConfigDict(dict(kind=kind, dataset='atlas', size=size, objects=objects, findings=(), negatives='evaluation'))


def read(kind, **fields):
  return read_row(ABOUT, configure(kind), make_record(**fields))


def draw_ellipse(shape, *, smooth):
  """Of a third of each side, somewhat off the middle; the share of each pixel that it covers if `smooth`, else whether
  it covers the pixel's centre."""
  within = (np.arange(9) + 0.5) / 9 if smooth else np.array([0.5])
  y = (np.arange(shape[0])[:, None] + within).reshape(-1, 1) / shape[0]
  x = (np.arange(shape[1])[:, None] + within).reshape(1, -1) / shape[1]
  inside = ((y - 0.52) ** 2 + (x - 0.46) ** 2 < (1 / 3) ** 2).astype(np.float64)
  return inside.reshape(shape[0], len(within), shape[1], len(within)).mean((1, 3))


@pytest.mark.parametrize('shape', [(211, 140), (40, 56), (SIZE, SIZE), (128, 192)])
def test_the_mask_lies_where_the_image_has_it(shape):
  row = read('segmentation', image=encode((200 * draw_ellipse(shape, smooth=True)).astype(np.uint8)),
             mask=encode(draw_ellipse(shape, smooth=False).astype(np.uint8)))
  assert row['image'].shape == (SIZE, SIZE, 1) and row['image'].dtype == np.uint8
  assert row['mask'].shape == (SIZE, SIZE) and row['mask'].dtype == np.int8
  seen, marked = row['image'][..., 0] > 100, row['mask'] == 1
  assert (seen & marked).sum() / (seen | marked).sum() >= 0.97
  middle = np.argwhere(marked).mean(0) + 0.5  # a quarter of a pixel off where a centre falls between two stored pixels
  np.testing.assert_allclose(middle, (0.52 * SIZE, 0.46 * SIZE), rtol=0, atol=0.3)  # INTER_NEAREST is 0.4 to 0.5 off


@pytest.mark.reference
@pytest.mark.parametrize('shape', [(211, 140), (40, 56)])
def test_masks_are_squashed_as_torchvision_does(shape):
  functional = pytest.importorskip('torchvision.transforms.v2.functional')
  torch = pytest.importorskip('torch')
  mask = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
  expected = functional.resize(torch.tensor(mask)[None], [SIZE, SIZE],
                               interpolation=functional.InterpolationMode.NEAREST_EXACT)[0]
  np.testing.assert_array_equal(records.decode_mask(encode(mask), SIZE), expected)


def test_no_class_appears_and_what_is_not_annotated_stays_so():
  mask = np.zeros((90, 110), np.uint8)
  mask[:, 55:], mask[60:] = 2, label_columns.UNANNOTATED
  row = read('segmentation', mask=encode(mask))['mask']
  assert set(np.unique(row)) == {-1, 0, 2}
  assert (row[44:] == -1).all() and (row[:42] >= 0).all()


def test_unknown_findings_are_absent_and_unknown():
  row = read('classification', present=np.float32([1, np.nan]), label_mask=np.array([True, False]))
  np.testing.assert_array_equal(row['present'], np.float32([1, 0]))
  np.testing.assert_array_equal(row['label_mask'], [True, False])
  assert row['present'].dtype == np.float32 and row['label_mask'].dtype == bool
  row = read('classification', present=np.float32([1, 1]), label_mask=np.array([True, False]))
  np.testing.assert_array_equal(row['present'], [1, 0])


def make_objects(*boxes):
  return {'box': [np.float32(box) for _, *box in boxes], 'class_id': [np.int64(kind) for kind, *_ in boxes]}


def test_empty_slots_follow_the_boxes():
  row = read('detection', objects=make_objects((1, 0.25, 0.5, 0.75, 1.0)))
  np.testing.assert_array_equal(row['boxes'], np.float32([[0.25, 0.5, 0.75, 1.0], [0] * 4, [0] * 4]))
  np.testing.assert_array_equal(row['class_id'], np.int32([1, -1, -1]))
  assert row['boxes'].dtype == np.float32 and row['class_id'].dtype == np.int32
  none = read('detection', objects=make_objects())
  assert none['boxes'].shape == (3, 4) and (none['class_id'] == -1).all()


def test_of_too_many_boxes_the_largest_are_kept_and_it_is_said_once(caplog):
  many = make_objects(*((index % 2, 0, 0, side, side) for index, side in enumerate((0.1, 0.5, 0.9, 0.2, 1))))
  with caplog.at_level(logging.WARNING):
    rows = [read('detection', objects=many, image_id=b'crowded') for _ in range(3)]
  np.testing.assert_allclose(rows[2]['boxes'][:, 2], [0.5, 0.9, 1.0])
  np.testing.assert_array_equal(rows[2]['class_id'], [1, 0, 0])
  assert [record.message for record in caplog.records] == [
    'atlas crowded has 5 boxes; only the 3 largest are kept. Raise --config.tasks.TASK.objects to keep all']


@pytest.mark.parametrize('task, fields, words', [
  ('segmentation', {}, "atlas a7 has no 'mask', which segmentation needs; it has image, image_id, source"),
  ('classification', {'value': np.float32([3])}, "atlas a7 has no 'present', which classification needs"),
  ('classification', {'present': np.zeros(3), 'label_mask': np.ones(3, bool)}, 'atlas a7: present'),
  ('classification', {'present': np.float32([0.5, 1]), 'label_mask': np.ones(2, bool)}, 'atlas a7: present'),
  ('regression', {'value': np.float32([np.nan])}, r'atlas a7: the value is \[nan\]'),
  ('segmentation', {'mask': encode(np.full((8, 8), 3, np.uint8))}, r'atlas a7: the mask has values \[3\]'),
  ('detection', {'objects': make_objects((2, 0, 0, 1, 1))}, r'atlas a7: boxes have the class ids \[2\]'),
  ('segm', {}, "unknown kind of task 'segm': choose one of classification, detection, regression, segmentation"),
])
def test_what_a_task_lacks_is_said_with_the_dataset(task, fields, words):
  with pytest.raises(ValueError, match=words):
    read(task, **fields)


@pytest.mark.parametrize('task, name', [
  ('classification', 'mura'), ('regression', 'rsna_bone_age'), ('segmentation', 'lung_masks'), ('detection', 'tbx11k')])
def test_records_of_the_builders_are_read(prepared, task, name):
  source, left_out = keep_usable(configure(task), open_source(name, prepared, '256', 'train'))
  config = configure(task, size=48, objects=8)
  rows = [read_row(source.about, config, source.records[i]) for i in range(len(source))]
  batch = {field: np.stack([row[field] for row in rows]) for field in rows[0]}
  assert batch['image'].shape == (len(source), 48, 48, 1) and batch['image'].std() > 10
  if task == 'classification':
    assert batch['label_mask'].any() and set(np.unique(batch['present'])) == {0, 1}
  if task == 'segmentation':
    assert {-1, 0, 1} >= set(np.unique(batch['mask'])) >= {0, 1}
  if task == 'detection':
    real = batch['class_id'] >= 0
    assert real.any(1).all() and (batch['boxes'][real][:, 2:] > batch['boxes'][real][:, :2]).all()
    assert left_out['no box'] > 0  # healthy people
  if task == 'regression':
    assert batch['value'].shape == (len(source), 1) and 0 < batch['value'].min() and batch['value'].max() < 240


def test_a_record_is_described_in_words(prepared):
  record = open_source('nih_chest_xray', prepared, '256', 'train').records[0]
  said = records.describe_record(record)
  assert set(said) == {'image_id', 'patient', 'study', 'sex', 'age', 'view', 'part'}
  assert said['patient'].startswith('nih_chest_xray:') and said['part'] == 'chest' and said['view'] in ('PA', 'AP')
  assert said['sex'] in ('F', 'M') and isinstance(said['age'], float) and '_' in said['image_id']
  own = make_record(patient='p', study='', sex='', view='', part='hand', age=np.float32(np.nan))
  assert records.describe_record(own)['part'] == 'hand' and np.isnan(records.describe_record(own)['age'])


def keep(task, about, *fields):
  source = Source('atlas', 'train', '1.0.0', about, [make_record(**each) for each in fields])
  kept, left_out = keep_usable(configure(task), source)
  return [kept.records[i] for i in range(len(kept))], left_out, source


def test_records_without_a_usable_label_are_left_out_and_counted():
  unmarked, half = np.full((8, 8), label_columns.UNANNOTATED, np.uint8), np.zeros((8, 8), np.uint8)
  half[:4] = label_columns.UNANNOTATED
  kept, left_out, source = keep('segmentation', ABOUT, {'mask': encode(unmarked)}, {'mask': encode(half)},
                                {'mask': encode(unmarked)}, {'mask': encode(half)})
  assert kept == [source.records[1], source.records[3]] and left_out == {'no annotated pixel': 2}
  kept, left_out, _ = keep('detection', ABOUT, {'objects': make_objects()}, {'objects': make_objects((0, 0, 0, 1, 1))})
  assert len(kept) == 1 and left_out == {'no box': 1}
  kept, left_out, _ = keep('regression', ABOUT, {'value': np.float32([np.nan])}, {'value': np.float32([3])})
  assert kept[0]['value'] == 3 and left_out == {'unknown value': 1}


def test_of_exclusive_findings_the_one_must_be_known():
  absent = {'present': np.float32([0, 0]), 'label_mask': np.array([True, False])}
  stated = {'present': np.float32([0, 1]), 'label_mask': np.array([False, True])}
  silent = {'present': np.float32([0, 0]), 'label_mask': np.array([False, False])}
  kept, left_out, _ = keep('classification', ABOUT, absent, stated, silent)
  assert len(kept) == 2 and left_out == {'no known finding': 1}
  kept, left_out, _ = keep('classification', ABOUT | {'relation': 'exclusive'}, absent, stated, silent)
  assert len(kept) == 1 and left_out == {'no finding known to be present': 2}


def test_a_source_without_a_usable_label_is_refused():
  with pytest.raises(ConfigError, match='the train split of atlas .* has no image for detection: of 1 images, 1 with'):
    keep('detection', ABOUT, {'objects': make_objects()})


@pytest.mark.parametrize('classes, dtype', [(128, np.int8), (200, np.int16)])
def test_no_class_of_a_mask_wraps_around(classes, dtype):
  about = {'mask': [str(index) for index in range(classes)]}
  mask = np.full((SIZE, SIZE), classes - 1, np.uint8)
  mask[:4] = label_columns.UNANNOTATED
  row = read_row(about, configure('segmentation'), make_record(mask=encode(mask)))['mask']
  assert row.dtype == dtype and set(np.unique(row)) == {-1, classes - 1}


def test_an_image_without_a_known_finding_among_those_asked_for_is_left_out():
  task_config = configure('classification')
  task_config.findings = ('mass',)
  labelled = [make_record(present=np.float32([1, 0]), label_mask=np.array(mask))
              for mask in ([True, False], [True, True])]
  kept, left_out = keep_usable(task_config, Source('atlas', 'train', '1.0.0', ABOUT, labelled))
  assert len(kept) == 1 and left_out == {'no known finding': 1}


def test_a_misspelt_finding_is_answered_with_those_that_the_dataset_has():
  task_config = configure('classification')
  task_config.findings = ('mas',)
  record = make_record(present=np.float32([1, 0]), label_mask=np.ones(2, bool))
  message = "atlas has no finding 'mas': choose one of nodule, mass"
  with pytest.raises(ValueError, match=message):
    keep_usable(task_config, Source('atlas', 'train', '1.0.0', ABOUT, [record]))
  with pytest.raises(ValueError, match=message):
    read_row(ABOUT, task_config, record)


def test_an_image_with_two_exclusive_findings_is_left_out():
  about = ABOUT | {'relation': 'exclusive'}
  both, one = ({'present': np.float32(present), 'label_mask': np.ones(2, bool)} for present in ([1, 1], [0, 1]))
  kept, left_out, _ = keep('classification', about, both, one)
  assert len(kept) == 1 and left_out == {'several findings known to be present': 1}


def test_a_task_may_be_among_the_images_with_one_finding():
  known, unknown = np.array([True, True]), np.array([True, False])
  records = [make_record(image_id=name, present=np.float32(present), label_mask=label_mask)
             for name, present, label_mask in ((b'both', [1, 1], known), (b'one', [0, 1], known),
                                               (b'none', [0, 0], known), (b'unknown', [1, 1], unknown))]
  task_config = configure('classification')
  task_config.update(findings=('nodule',), among='mass')
  kept, left_out = keep_usable(task_config, Source('atlas', 'train', '1.0.0', ABOUT, records))
  assert [kept.records[index]['image_id'] for index in range(len(kept))] == [b'both', b'one']
  assert left_out == {'no mass': 2}
  task_config.among = 'fracture'
  with pytest.raises(ValueError, match="no finding 'fracture': choose one of nodule, mass"):
    keep_usable(task_config, Source('atlas', 'train', '1.0.0', ABOUT, records))
