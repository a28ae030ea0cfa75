"""Masks from files to records. What each kind of file gives is in test_what_is_read.py."""

import dataclasses
import functools

import numpy as np
import pytest

from tests.support import pictures
from tests.support.archives import read_all, write_clinic
from tfds_builders import build
from tfds_builders.common import dataset, decoded, images, label_columns, masks, nlm_tuberculosis, records

SHAPE = np.zeros((20, 30), np.uint8)
SHAPE[5:15, 10:20] = 1


def write_masks(folder, mask_of, patients=4):
  """A clinic whose image i has the mask file mask_of(i)."""
  root = write_clinic(folder, patients=patients)
  (root / 'masks/a').mkdir(parents=True)
  for i in range(2 * patients):
    (root / f'masks/a/{i}.png').write_bytes(mask_of(i))
  return root


@pytest.mark.parametrize('colour', [(0, 255, 0), (0, 0, 9), (128, 0, 0)])
def test_masks_in_rgba_mark_the_same_pixels_in_every_colour(colour, tmp_path):
  painted = SHAPE[..., None] * np.array(colour, np.uint8)
  rgba = np.dstack([painted, np.full(SHAPE.shape, 255, np.uint8)])
  (tmp_path / 'a.png').write_bytes(pictures.make_png(rgba))
  np.testing.assert_array_equal(masks.read(tmp_path / 'a.png', 2), SHAPE)
  np.testing.assert_array_equal(masks.read_foreground(tmp_path / 'a.png'), SHAPE)


def make_record(folder, picture, mask, stretch=0.02):
  """The record of an image and a mask of two classes, or why there is none."""
  for name, raw in (('image', picture), ('mask', mask)):
    (folder / f'{name}.png').write_bytes(raw)
  entry = dataset.Entry('a', 'a', folder / 'image.png', mask=functools.partial(masks.read, folder / 'mask.png', 2),
                        mask_stretch=stretch)
  return records.make_record(entry, 'clinic', '256', has_mask=True, has_boxes=False)


def test_a_mask_of_another_aspect_is_rejected_with_both_sizes(tmp_path):
  picture, turned = (pictures.make_png(np.ascontiguousarray(values)) for values in (SHAPE, SHAPE.T))
  reason = str(make_record(tmp_path, picture, turned))
  assert reason.startswith('mask of another shape than its image: 20 x 30 pixels, the image has 30 x 20')
  double = pictures.make_png(np.kron(SHAPE, np.ones((2, 2), np.uint8)))
  np.testing.assert_array_equal(images.decode_stored(make_record(tmp_path, picture, double)['mask']), SHAPE)


def test_a_dataset_whose_masks_are_all_empty_is_an_error_and_leaves_nothing_behind(tmp_path, capsys):
  empty = [pictures.make_png(np.full((20, 30), value, np.uint8)) for value in (0, label_columns.UNANNOTATED)]
  root = write_masks(tmp_path, lambda i: empty[i % 2])
  (root / 'classes.txt').write_text('background\nulna\nradius\n')
  assert build.main(['clinic', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]) != 0
  line, = capsys.readouterr().err.strip().splitlines()
  assert 'clinic: all of its 8 masks are empty' in line and 'docs/own-data.md' in line
  assert not build.locate('clinic', tmp_path / 'data').exists()


def test_a_dataset_whose_masks_are_all_rejected_gives_their_reason(tmp_path, capsys):
  root = write_masks(tmp_path, lambda i: pictures.encode(SHAPE * np.uint8(40), 'JPEG'))
  for path in sorted(root.glob('masks/a/*'))[1:]:
    path.unlink()
  flags = ['--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data'), '--tolerated', '1']
  assert build.main(['clinic', *flags]) == 2
  assert 'all of its 1 images with a mask are rejected' in (line := capsys.readouterr().err) and 'without white' in line


def test_one_mask_that_marks_something_is_enough(tmp_path):
  write_masks(tmp_path, lambda i: pictures.make_png(SHAPE * np.uint8(i == 6)))
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert sum(record['mask'].any() for record in read_all(path).values()) == 1


def test_a_mask_is_turned_by_its_own_orientation_like_its_image(tmp_path):
  picture, mask = (pictures.encode(SHAPE * np.uint8(value), exif=pictures.make_exif(6)) for value in (250, 255))
  record = make_record(tmp_path, picture, mask)
  shown = images.decode_stored(record['image'])
  assert shown.shape == (30, 20)
  np.testing.assert_array_equal(images.decode_stored(record['mask']) == 1, shown == 250)


def test_lung_masks_of_squashed_images_are_read_and_turned_ones_are_not(tmp_path):
  """Copies of this archive hold images squashed to a square, whose masks keep the shape of the film."""
  (tmp_path / 'MCUCXR_0001_0.png').write_bytes(pictures.make_png(np.full((100, 100), 9, np.uint8)))
  files = {'CXR_png/MCUCXR_0001_0.png': 1}
  (entry,), _, _ = nlm_tuberculosis.make_entries(tmp_path, files, {'MCUCXR_0001_0': ['mask.png']})
  entry = dataclasses.replace(entry, path=tmp_path / 'MCUCXR_0001_0.png')
  for width, fits in ((112, True), (140, False)):
    (tmp_path / 'mask.png').write_bytes(pictures.make_png(np.full((100, width), 255, np.uint8)))
    record = records.make_record(entry, 'lung_masks', '256', has_mask=True, has_boxes=False)
    assert isinstance(record, dict) == fits


@pytest.mark.parametrize('mask, classes, reason', [
  (SHAPE * np.uint8(7), 2, r'unknown class: \[7\], classes are 0 to 1; write 0 and 1, or 0 and 255, or name'),
  (SHAPE * np.uint8(7), 3, r'unknown class: \[7\], classes are 0 to 2; write the numbers'),
  (SHAPE * np.uint8(7) + np.uint8(1), 2, r'unknown class: \[8\], classes are 0 to 1; write 0 and 1, or 0 and 255'),
  (np.dstack([SHAPE, SHAPE * 0, SHAPE]), 3, r'3 classes in colour \(mode RGB\): write one channel of class numbers'),
  (np.dstack([SHAPE, SHAPE * 0, SHAPE, SHAPE]), 3, r'3 classes in colour \(mode RGBA\)'),
  (np.dstack([SHAPE + 1, SHAPE]), 3, r'3 classes with transparency \(mode LA\)')])
def test_a_rejected_mask_says_what_to_write(mask, classes, reason, tmp_path):
  (tmp_path / 'a.png').write_bytes(pictures.make_png(mask))
  with pytest.raises(decoded.Unreadable, match=reason):
    masks.read(tmp_path / 'a.png', classes)
