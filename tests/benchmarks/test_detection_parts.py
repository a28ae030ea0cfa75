"""The parts of the detector that are timed make up the whole one, and the table has their ratios."""

import jax
import numpy as np
import pytest

from benchmarks import detection_parts
from benchmarks.support.detection_parts_jax import Detector, list_parts, list_programs
from mtpret_jax.models.resnet import LAYERS, BasicBlock
from tests.reference.detection_setting import CONFIG

OPTIONS = detection_parts.parse(['--size=64', '--batch=2', '--boxes=2', '--slots=3'])


@pytest.fixture(autouse=True)
def small_trunk(monkeypatch):
  monkeypatch.setitem(LAYERS, 'four_blocks', (BasicBlock, (1, 1, 1, 1)))


def make_detector():
  return Detector('four_blocks', detection_parts.CLASSES, CONFIG, detection_parts.draw_weight)


def test_the_parts_find_what_the_whole_detector_finds():
  programs = list_programs(make_detector(), detection_parts.CLASSES, CONFIG, *detection_parts.draw_inputs(OPTIONS),
                           OPTIONS.slots, only='inference')
  found, whole = ({name: np.asarray(array) for name, array in program(*inputs).items()}
                  for program, inputs in (programs['inference: detections'], programs['inference: whole']))
  np.testing.assert_allclose(found['boxes'] / OPTIONS.size, whole['boxes'], atol=1e-5)
  np.testing.assert_array_equal(found['class_id'], whole['class_id'])


def test_training_has_every_part():
  names = []
  images, boxes, classes = detection_parts.draw_inputs(OPTIONS)
  batch = {'image': images, 'boxes': boxes / OPTIONS.size, 'class_id': classes, 'valid': np.ones(2, bool)}
  jax.eval_shape(lambda batch: names.extend(list_parts(make_detector(), CONFIG, batch, training=True)), batch)
  assert names == [
    'trunk', 'FPN', 'RPN head', 'proposals', 'RPN targets', 'RoI targets', 'RoI align', 'RoI head', 'losses']


def test_the_ratio_is_our_time_over_theirs_pair_by_pair():
  seconds = {'ours': {'FPN': [(9, 0.002), (9, 0.004), (9, 0.006)]},
             'torchvision': {'FPN': [(9, 0.001), (9, 0.004), (9, 0.012)]}}
  assert detection_parts.describe(['FPN'], seconds, column=1).splitlines()[-1] == (
    '| FPN | 4.0 | 4.0 | 1.00 (0.50 to 2.00) |')
  del seconds['torchvision']
  assert detection_parts.describe(['FPN'], seconds, column=0).splitlines() == [
    '| part | ours, ms |', '|---|--:|', '| FPN | 9000.0 |']
