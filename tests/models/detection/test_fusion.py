"""Boxes of several detectors are fused as the authors of weighted boxes fusion do; fusion_record.py recorded theirs."""

import jax
import numpy as np
import pytest

from mtpret_jax.models.detection.fusion import fuse
from tests.reference import fusion_setting as setting

SLOTS = 16
fuse_compiled = jax.jit(fuse)


def pad(boxes, class_id, score):
  empty = SLOTS - len(score)
  return {'boxes': np.pad(np.float32(boxes).reshape(-1, 4), ((0, empty), (0, 0))),
          'class_id': np.pad(np.int32(class_id), (0, empty), constant_values=-1),
          'score': np.pad(np.float32(score), (0, empty))}


def fuse_all(images):
  """images: [[(boxes, classes, scores) of each detector] of each image] -> [(boxes, classes, scores) of each image]."""
  detectors = [jax.tree.map(lambda *rows: np.stack(rows), *[pad(*found) for found in of_detector])
               for of_detector in zip(*images, strict=True)]
  found = jax.device_get(fuse_compiled(detectors))
  assert found['score'].shape == (len(images), SLOTS) and found['class_id'].dtype == np.int32
  kept = found['class_id'] >= 0
  assert not found['score'][~kept].any() and not found['boxes'][~kept].any()
  return [tuple(found[field][image][kept[image]] for field in ('boxes', 'class_id', 'score'))
          for image in range(len(images))]


def test_boxes_are_those_of_the_authors_package():
  images = [setting.make_case(image) for image in range(2)]
  with np.load(setting.FIXTURE) as recorded:
    for image, (boxes, class_id, score) in enumerate(fuse_all(images)):
      most = len(score)
      assert most == min(SLOTS, len(recorded[f'score {image}'])) < sum(len(found[1]) for found in images[image])
      np.testing.assert_allclose(score, recorded[f'score {image}'][:most], rtol=1e-5)
      np.testing.assert_allclose(boxes, recorded[f'boxes {image}'][:most], rtol=1e-5, atol=1e-6)
      np.testing.assert_array_equal(class_id, recorded[f'class_id {image}'][:most])


@pytest.mark.parametrize('found, expected', [
  pytest.param([([[0, 0, .4, .4]], [0], [.8]), ([[0, 0, .4, .5]], [0], [.4])],
               ([[0, 0, .4, (.8 * .4 + .4 * .5) / 1.2]], [0], [.6]), id='the mean is weighted by score'),
  pytest.param([([[0, 0, .4, .4]], [0], [.9]), ([[.5, .5, .9, .9]], [0], [.4])],
               ([[0, 0, .4, .4], [.5, .5, .9, .9]], [0, 0], [.45, .2]), id='found by one of two: half of the score'),
  pytest.param([([[0, 0, .4, .4]], [1], [.9]), ([[0, 0, .4, .4]], [0], [.8])],
               ([[0, 0, .4, .4], [0, 0, .4, .4]], [1, 0], [.45, .4]), id='classes are kept apart'),
  pytest.param([([[0, 0, .4, .4]] * 3, [0] * 3, [.9, .6, .3]), ([], [], [])],
               ([[0, 0, .4, .4]], [0], [.6]), id='a detector that finds it three times'),
  pytest.param([([[0, 0, .4, .4]], [0], [.6]), ([[0, 0, .4, .72]], [0], [.6])],  # IoU 0.5556
               ([[0, 0, .4, .56]], [0], [.6]), id='an overlap of more than 0.55'),
  pytest.param([([[0, 0, .4, .4]], [0], [.6]), ([[0, 0, .4, .73]], [0], [.5])],  # IoU 0.5479
               ([[0, 0, .4, .4], [0, 0, .4, .73]], [0, 0], [.3, .25]), id='an overlap of less'),
  pytest.param([([], [], []), ([], [], [])], (np.zeros((0, 4)), [], []), id='no box')])
def test_cases_worked_by_hand(found, expected):
  for values, wanted in zip(fuse_all([found])[0], expected, strict=True):
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-7)
