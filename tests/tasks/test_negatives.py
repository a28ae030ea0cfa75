"""Detection: images without boxes count where the config wants them and the dataset knows that they were examined."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mtpret_jax.data.sources import Source, open_source
from mtpret_jax.tasks import detection
from tests.support.usable import keep_usable

ABOUT = {'findings': ['other', 'tuberculosis'], 'relation': 'independent', 'box_classes': ['active'],
         'box_negatives': ['tuberculosis']}
BOX, NO_BOX = {'box': [np.float32([0, 0, 1, 1])], 'class_id': [np.int64(0)]}, {'box': [], 'class_id': []}


def make_record(image_id, objects, tuberculosis, known=True):
  return {'image_id': image_id, 'source': b'atlas', 'objects': objects, 'present': np.float32([1, tuberculosis]),
          'label_mask': np.array([True, known])}


RECORDS = [make_record(b'boxed', BOX, 1), make_record(b'healthy', NO_BOX, 0), make_record(b'ill', NO_BOX, 1),
           make_record(b'unknown', NO_BOX, 0, known=False)]


def configure(negatives):
  return ConfigDict(dict(kind='detection', dataset='atlas', objects=3, negatives=negatives))


def keep(negatives, split='test', about=ABOUT):
  """Names of the images that the split keeps, and how many it leaves out."""
  kept, left_out = keep_usable(configure(negatives), Source('atlas', split, '1.0.0', about, RECORDS))
  return [kept.records[index]['image_id'].decode() for index in range(len(kept))], left_out.get('no box', 0)


@pytest.mark.parametrize('negatives, split, kept', [
  ('never', 'train', ['boxed']), ('never', 'test', ['boxed']), ('evaluation', 'train', ['boxed']),
  ('evaluation', 'validation', ['boxed', 'healthy']), ('evaluation', 'test', ['boxed', 'healthy']),
  ('always', 'train', ['boxed', 'healthy']), ('always', 'test', ['boxed', 'healthy'])])
def test_negatives_are_in_the_splits_that_the_config_names(negatives, split, kept):
  assert keep(negatives, split) == (kept, 4 - len(kept))


def test_all_findings_that_have_boxes_must_be_absent():
  assert keep('always', about=ABOUT | {'box_negatives': ['other', 'tuberculosis']}) == (['boxed'], 3)


def test_an_image_that_the_box_file_lists_without_a_box_is_a_negative_whatever_its_findings():
  listed = {'box_classes': ['active'], 'findings': [], 'box_negatives': [], 'negative_images': ['absent', 'ill', 'zoo']}
  assert keep('evaluation', about=listed) == (['boxed', 'ill'], 2)


def test_a_dataset_that_does_not_tell_has_no_negatives():
  assert keep('always', about={'box_classes': ['active'], 'findings': ['other', 'tuberculosis']}) == (['boxed'], 3)


@pytest.mark.parametrize('name, findings', [
  ('tbx11k', ['tuberculosis']), ('vinbigdata_cxr', None), ('nih_chest_xray', [])])
def test_the_builders_know_their_negatives(name, findings, prepared):
  negatives, undecided = set(), set()
  for split in ('train', 'validation', 'test'):
    source = open_source(name, prepared, '256', split)
    about = source.about
    assert about['box_negatives'] == (about['findings'] if findings is None else findings)
    places = [about['findings'].index(finding) for finding in about['box_negatives']]
    for record in (source.records[index] for index in range(len(source))):
      absent = bool(places) and record['label_mask'][places].all() and not record['present'][places].any()
      assert detection.is_negative(about, record) == absent
      if len(record['objects']['class_id']):
        assert not absent  # where only one of three readers draws a box, the finding is unknown
      else:
        (negatives if absent else undecided).add(record['image_id'].decode())
  assert bool(negatives) == (name != 'nih_chest_xray')
  assert name != 'tbx11k' or all(image_id.startswith('tb') for image_id in undecided)  # ill, and without a box
