"""The picture of what the network sees: images of a batch, and their random views with masks and boxes."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from mtpret_jax.report import examples
from mtpret_jax.report.views import COLOURS, GAP, draw_labels, draw_views
from mtpret_jax.tasks import find_kind

SIZE = 16


def make_config(*tasks):
  return ConfigDict(dict(seed=0, augment=common.moco_v2_augment(SIZE), tasks={
    name: dict(augment=common.labelled_augment(SIZE)) for name in tasks}))


def make_images(count=3):
  return np.random.default_rng(0).integers(0, 256, (count, 20, 20, 1), np.uint8)


def test_stage_1_shows_each_image_with_two_views():
  images = make_images()
  picture = draw_views(make_config(), 'moco', {'query': images, 'key': images, 'source': np.zeros(3, np.int32)})
  assert picture.shape == (3 * (SIZE + GAP), 3 * (SIZE + GAP), 3) and picture.dtype == np.uint8
  cells = picture.reshape(3, SIZE + GAP, 3, SIZE + GAP, 3)[:, :SIZE, :, :SIZE]
  assert all((cells[0, :, index] != cells[row, :, index]).any() for row in (1, 2) for index in range(3))


def test_the_mask_and_the_boxes_are_drawn_over_the_image():
  mask = np.zeros((1, SIZE, SIZE), np.int8)
  mask[0, :, 8:] = 2
  grey = np.zeros((SIZE, SIZE), np.float32)
  drawn = draw_labels(grey, {'mask': mask}, 0, SIZE)
  assert (drawn[:, :8] == 0).all() and (drawn[:, 8:] == COLOURS[1] // 2).all()
  boxes = {'boxes': np.array([[[0.0, 0.0, 1.0, 1.0], [0.4, 0.4, 0.6, 0.6]]]), 'class_id': np.array([[0, -1]])}
  drawn = draw_labels(grey, boxes, 0, SIZE)
  assert (drawn[0] == COLOURS[0]).all() and (drawn[4:12, 4:12] == 0).all(), 'an empty slot has no box'


def test_a_joint_step_shows_all_of_its_tasks():
  rows = {f'{name}/image': make_images(count) for name, count in (('lung', 3), ('knee', 2))}
  picture = draw_views(make_config('lung', 'knee'), 'joint', rows)
  assert picture.shape == (4 * (SIZE + GAP), 3 * (SIZE + GAP), 3)


def test_a_flipped_view_shows_the_classes_of_the_other_side():
  config = make_config('lung')
  config.tasks.lung.augment.update(flip=1.0, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))
  rows = {'image': make_images(1), 'mask': np.ones((1, 20, 20), np.int8)}
  plain, swapped = (draw_views(config, 'lung', rows, mirrors)[SIZE + GAP:-GAP, :SIZE].astype(int)
                    for mirrors in ({}, {'lung': (0, 2, 1)}))
  first, second = (colour // 2 for colour in COLOURS[:2].astype(int))
  np.testing.assert_array_equal(plain - first, swapped - second)


def test_predictions_become_a_picture_of_pixels():
  example = {'image': np.zeros((8, 8)), 'about': {'findings': ('cyst',)}, 'labels': {},
             'prediction': {'score': np.array([0.25])}}
  picture = examples.draw_picture(find_kind('classification'), [example] * 2, 'knee, validation split, step 20')
  assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
  assert picture.min() == pytest.approx(0, abs=2) and picture.max() == 255
