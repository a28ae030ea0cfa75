"""The report of a prepared dataset: no warning on phantoms, and one on records that were spoiled in a known way."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.support.archives import write_clinic
from tests.support.paths import XRAYS
from tfds_builders import build, inspect, sanity, sanity_rules
from tfds_builders.common import images, index, polarity, published

CHEST, HAND, MASKS, BOXES = 'kermany_pneumonia', 'rsna_bone_age', 'lung_masks', 'frac_atlas'


def read_records(path):
  """[(split, position, record), ...] of a prepared version; images and masks encoded."""
  builder = tfds.builder_from_directory(path)
  return [(split, position, index.parse(builder, raw)) for split in sanity.SPLITS
          for position, raw in enumerate(index.scan(builder, split))]


def check_changed(prepared, name, change):
  """Warnings on a dataset after change(number, record) has changed every record."""
  path = build.locate(name, prepared)
  report = sanity.Report(path)
  for number, (split, position, record) in enumerate(read_records(path)):
    change(number, record)
    report.add(split, position, record)
  return sanity_rules.warn(report)


def invert(record):
  record['image'] = images.encode(255 - images.decode_stored(record['image']))


def change_mask(change):
  """A function for `check_changed` that replaces a mask by change(mask)."""
  def change_record(_, record):
    record['mask'] = images.encode(np.ascontiguousarray(change(images.decode_stored(record['mask']))))
  return change_record


def change_boxes(change):
  """A function for `check_changed` that draws two bright boxes, no turn of one on the other, and changes the labels."""
  def change_record(number, record):
    grey = np.random.default_rng(number).integers(0, 60, (96, 96), np.uint8)
    boxes = np.array([[0.6, 0.1, 0.95, 0.3], [0.1, 0.05 + number / 60, 0.2, 0.25 + number / 60]], np.float32)
    for y0, x0, y1, x1 in (boxes * 96).round().astype(int):
      grey[y0:y1, x0:x1] += 150
    record['image'] = images.encode(grey)
    record['objects'] = {'box': np.array([change(box) for box in boxes]), 'class_id': np.zeros(2, int)}
  return change_record


@pytest.mark.parametrize('name', build.NAMES)
def test_phantoms_give_no_warning(name, prepared):
  report = sanity.check(build.locate(name, prepared))
  assert len(report.pixels) == report.records == report.total
  assert sanity_rules.warn(report) == []


@pytest.mark.parametrize('name', (CHEST, HAND, 'panoramic_dental', 'knee_oa'))
@pytest.mark.parametrize('every', (1, 2))
def test_inverted_images_give_a_warning(name, every, prepared):
  found = check_changed(prepared, name, lambda number, record: number % every or invert(record))
  wanted = 'look inverted' if every == 1 else 'look like negatives of the others'
  assert any(wanted in warning for warning in found), found


def test_inverted_chests_are_found_without_the_body_part(prepared):
  def change(_, record):
    record['part'] = b''
    invert(record)
  warning, = check_changed(prepared, CHEST, change)
  assert 'look inverted: border and flanks are brighter' in warning


@pytest.mark.skipif(not XRAYS.is_dir(), reason='no real radiographs beside the checkout')
@pytest.mark.parametrize('folder, part', [
  ('pneumonia_kermany/chest_xray/test/NORMAL', 'chest'), ('covid_chestxray/images', 'chest'),
  ('covid_chestxray/images', ''), ('knee_oa/train/0', 'knee'), ('knee_oa/train/4', 'knee')])
def test_real_radiographs_and_their_negatives_are_told_apart(folder, part):
  paths = sorted((XRAYS / folder).iterdir())[:12]
  thumbnails = [polarity.make_thumbnail(images.read(path)) for path in paths]
  rule = polarity.choose_rule(part, 'PA')
  errors = sum(polarity.looks_inverted(image, rule) + (not polarity.looks_inverted(255 - image, rule))
               for image in thumbnails)
  assert errors <= (0 if rule == 'lungs' else 4), 'COVID and knees have 3 % errors in all'


def test_a_lateral_chest_has_no_polarity_rule():
  assert polarity.choose_rule('Chest', 'PA') == polarity.choose_rule('thorax', '') == 'lungs'
  assert polarity.choose_rule('chest', 'LATERAL') is polarity.choose_rule('chest', 'LL') is None
  assert polarity.choose_rule('', 'lateral') == polarity.choose_rule('hand', '') == 'centre'


@pytest.mark.parametrize('change, wanted', [
  (np.zeros_like, 'masks are empty. Pixels must be the numbers of the classes (1 lung)'),
  (lambda mask: np.where(mask == 255, mask, 1 - mask).astype(np.uint8), 'exchange background and foreground'),
  (lambda mask: mask[::-1], 'masks fit their images better upside down'),
  (lambda mask: cv2.resize(mask.T, mask.shape[::-1], interpolation=cv2.INTER_NEAREST),
   'masks fit their images better with x and y exchanged'),
  (lambda mask: np.roll(mask, mask.shape[1] // 8, 1), 'masks fit their images better if they are moved by'),
  (lambda mask: np.full_like(mask, 255), 'has an annotated mask')],
  ids=('empty', 'exchanged', 'flipped', 'transposed', 'shifted', 'unannotated'))
def test_masks_in_the_wrong_place_give_a_warning(change, wanted, prepared):
  warning, = check_changed(prepared, MASKS, change_mask(change))
  assert wanted in warning


def test_masks_of_other_images_give_a_warning(prepared):
  path = build.locate('montgomery_cxr', prepared)
  report, found = sanity.Report(path), read_records(path)
  found = [*found, *(read_records(build.locate(MASKS, prepared)))]
  for (split, position, record), (_, _, other) in zip(found, [found[-1], *found], strict=False):
    shape, mask = images.decode_stored(record['image']).shape, images.decode_stored(other['mask'])
    mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST)
    report.add(split, position, {**record, 'mask': images.encode(mask)})
  warning, = sanity_rules.warn(report)
  assert 'masks fit other images as well as their own' in warning


@pytest.mark.parametrize('change, wanted', [
  (lambda box: box, None),
  (lambda box: box[[1, 0, 3, 2]], 'boxes with x and y exchanged are brighter'),
  (lambda box: 1 - box[[2, 3, 0, 1]], 'boxes turned by 180 degrees are brighter'),
  (lambda box: box / 2, 'They may be in pixels of a smaller image'),
  (lambda box: np.minimum(box * 2, [0.98, 0.98, 1, 1]), 'They may be in pixels of a larger image')],
  ids=('right', 'swapped', 'turned', 'small', 'large'))
def test_boxes_in_the_wrong_place_give_a_warning(change, wanted, prepared):
  found = check_changed(prepared, BOXES, change_boxes(change))
  found = [warning for warning in found if 'box' in warning]
  assert any(wanted in warning for warning in found) if wanted else found == [], found


def test_a_dataset_without_boxes_gives_a_warning(prepared):
  def change(_, record):
    record['objects'] = {'box': np.zeros((0, 4)), 'class_id': np.zeros(0, int)}
  warning, = check_changed(prepared, BOXES, change)
  assert 'no image has a box' in warning


def test_blank_narrow_and_copied_images_give_a_warning(prepared):
  first = {}
  def change(number, record):
    if number == 0:
      record['image'] = images.encode(np.full((40, 40), 9, np.uint8))
    elif number == 1:
      record['image'] = images.encode(images.decode_stored(record['image'])[:10])
    elif number < 5 or number > 20:  # train, and validation or test
      record['image'] = first.setdefault('image', record['image'])
  blank, narrow, copies = check_changed(prepared, CHEST, change)
  assert '1 of 24 images are of one grey' in blank and '10 x 96 pixels' in narrow
  assert 'pairs of nearly the same image are in different splits' in copies


@pytest.fixture
def report(prepared):
  """A report to which no record was added."""
  return sanity.Report(build.locate(HAND, prepared))


def test_labels_that_are_all_the_same_give_a_warning_in_data_without_a_builder(report):
  report.name, report.metadata = 'clinic', {'findings': ['fracture', 'cast', 'pin']}
  report.present['train'] = [np.array([1, i % 2, np.nan]) for i in range(50)]
  warning, = sanity_rules.warn_of_labels(report)
  assert 'fracture is present in all 50 images' in warning


def test_the_prevalence_is_compared_with_the_archive_if_most_of_it_is_there(report):
  report.name, report.metadata = 'mura', {'findings': ['abnormal']}
  report.present['train'] = [np.array([float(i % 10 == 0)]) for i in range(1000)]
  assert not list(sanity_rules.warn_of_labels(report)), '24 images are a choice'
  report.total = 40_005
  warning, = sanity_rules.warn_of_labels(report)
  assert 'abnormal is present in 10.0% of the images; in the public archive it is in 41.0%' in warning
  report.present['train'] = [np.array([float(i % 10 < 4)]) for i in range(1000)]
  assert not list(sanity_rules.warn_of_labels(report))


def test_published_numbers_name_findings_of_the_builder(prepared):
  for name in build.NAMES:
    assert set(published.ARCHIVES[name].present) <= set(build.read_metadata(build.locate(name, prepared))['findings'])


def test_splits_with_another_prevalence_give_a_warning(report):
  report.metadata = {'findings': ['abnormal']}
  report.present.update(train=[np.array([float(i % 4 == 0)]) for i in range(100)], test=[np.array([1.0])] * 60)
  warning, = sanity_rules.warn_of_splits(report)
  assert 'abnormal is present in 100% of the images of test, but in 25% of those of train' in warning


def test_a_part_of_a_large_archive_is_told_from_an_incomplete_one(report):
  for total, wanted in ((1_000, []), (10_000, ['10,000 images, but the public archive has 12,611 or 14,036']),
                        (12_600, [])):
    report.total = total
    found = list(sanity_rules.warn_of_archive(report))
    assert [warning.split('. ')[0] for warning in found] == wanted


def test_a_patient_with_most_images_gives_a_warning(report):
  report.total = 80
  report.per_patient.update({'clinic:unknown': 60})
  warning, = sanity_rules.warn_of_archive(report)
  assert '60 of 80 images are of the patient clinic:unknown' in warning


@pytest.mark.parametrize('odd, wanted', [(None, []), (-1, ['in the public archive it is from 1 to 228']),
                                         (9999, ['1 of 41 values', 'in the public archive it is from 1 to 228'])])
def test_values_far_from_the_others_give_a_warning(odd, wanted, report):
  report.values = [100.0 + i for i in range(40)] + ([odd] if odd else [])
  found = list(sanity_rules.warn_of_values(report))
  assert len(found) == len(wanted) and all(text in warning for text, warning in zip(wanted, found, strict=True))


def test_large_datasets_are_sampled_evenly(prepared, monkeypatch):
  monkeypatch.setitem(sanity.SAMPLES, '256', 10)
  path = build.locate(CHEST, prepared)
  report = sanity.check(path)
  sizes = [split.num_examples for split in tfds.builder_from_directory(path).info.splits.values()]
  assert sum(sizes) == report.total == 24
  assert report.records == len(report.pixels) == sum(-(-size // 3) for size in sizes)
  assert {image['split'] for image in report.pixels} == set(sanity.SPLITS)


def test_build_and_inspect_end_with_the_report_and_its_warnings(tmp_path, capsys):
  write_clinic(tmp_path, head='image,patient,fracture', row=lambda i: f'a/{i}.png,{"p" if i > 4 else i},{i % 2}',
               patients=30)
  where = ['--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]
  assert build.main(['clinic', *where]) == 0
  built = capsys.readouterr().out
  assert 'check of 60 images, pixels of 60; images per patient' in built
  assert 'WARNING: 55 of 60 images are of the patient clinic:p' in built
  assert inspect.main(['clinic', *where[2:]]) == 0
  inspected = capsys.readouterr().out
  assert built[built.index('check of'):built.rindex('sheet.png')].replace('\n  ', '\n') in inspected
  assert build.main(['clinic', *where]) == 0
  assert 'check of' not in capsys.readouterr().out, 'already prepared'


@pytest.mark.parametrize('sheet, wanted', [('none/x.png', 'there is no folder'), ('x', 'ends in nothing'),
                                           ('x.dcm', 'no format of pictures')])
def test_a_sheet_that_cannot_be_written_is_refused_before_records_are_read(
    sheet, wanted, prepared, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(inspect, 'survey', lambda *_: pytest.fail('read records'))
  assert inspect.main([CHEST, '--data_dir', str(prepared), '--sheet', str(tmp_path / sheet)]) == 2
  error = capsys.readouterr().err.strip()
  assert wanted in error and '\n' not in error
