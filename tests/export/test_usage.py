"""The card says which of torchvision's builders loads a file, and whether it predicts the same."""

import pytest

from configs import common
from mtpret_jax.export.usage import OTHERWISE, describe_stock

ABOUT = {'findings': ['opacity'], 'mask': ['background', 'lung'], 'box_classes': ['nodule']}


def describe(kind, trunk='resnet50', channels=3, **changes):
  head = {'segmentation': common.deeplab_v3(), 'detection': common.faster_rcnn(512)}.get(kind, {})
  return describe_stock({'kind': kind, 'trunk': trunk, 'channels': channels, 'about': ABOUT,
                         'head': {**head, **changes}})


def test_torchvisions_own_deeplab_predicts_the_same():
  text = describe('segmentation')
  assert 'deeplabv3_resnet50' in text and 'num_classes=2)' in text and OTHERWISE not in text


@pytest.mark.parametrize('text', [describe('segmentation', output_stride=16, dilations=(6, 12, 18)),
                                  describe('detection')])
def test_other_dilations_and_anchors_load_but_predict_otherwise(text):
  assert OTHERWISE in text and 'num_classes=2)' in text  # the background is a class of the detector


@pytest.mark.parametrize('text', [describe('segmentation', 'resnet18'), describe('segmentation', width=64),
                                  describe('detection', roi_hidden=128), describe('segmentation', dilations=(6, 12))])
def test_other_parameters_load_into_no_builder(text):
  assert 'no builder' in text


def test_a_grey_stem_is_named():
  assert 'one input channel' in describe('classification', 'resnet18', channels=1)
  assert 'num_classes=1' in describe('classification', 'resnet18') and 'without `fc`' in describe('trunk')
