"""Archives with grades and boxes: against what the phantoms drew, with the quirks of the real ones, on real subsets."""

import collections
import pathlib

import numpy as np
import PIL.Image
import pytest

from tests.conftest import PHANTOMS
from tests.test_builders import REAL, match_truth, read_all, read_rejects
from tfds_builders import boxes, build, phantoms


def write_png(path, shape=(20, 30), grey=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(np.full(shape, grey, np.uint8)).save(path)


# Boxes

def test_a_box_is_cut_at_the_border_and_refused_where_nothing_is_left():
  assert boxes.place_box('a', 10, 20, 30, 60, width=100, height=200) == (('a', 0.1, 0.1, 0.3, 0.3), None)
  assert boxes.place_box('a', -10, 150, 30, 260, 100, 200) == (('a', 0.75, 0.0, 1.0, 0.3), None)
  for sides, reason in (((10, 20, 10, 60), 'box without area'), ((30, 20, 10, 60), 'box without area'),
                        ((float('nan'), 20, 30, 60), 'box without area'), ((100, 20, 120, 60), 'box outside the image'),
                        ((10, -9, 30, 0), 'box outside the image')):
    assert boxes.place_box('a', *sides, 100, 200) == (None, reason)


# Knee

def write_knees(root, names):
  for name in names:
    write_png(root / name)


def test_grades_and_sides_are_those_drawn(prepared):
  path = build.locate('knee_oa', prepared)
  about, records = build.read_metadata(path), read_all(path)
  assert about['relation'] == 'ordinal' and [name[:4] for name in about['findings']] == [f'KL {i}' for i in range(5)]
  seen = collections.Counter()
  for record, radiograph in match_truth('knee_oa', records):
    assert record['known'].all() and record['present'].tolist() == [float(i == radiograph.grade) for i in range(5)]
    assert record['patient'] == f'knee_oa:{9000001 + radiograph.patient}' and record['part'] == 'knee'
    seen[radiograph.grade] += 1
  assert set(seen) == set(range(5))
  sides = collections.Counter(record['patient'] for record in records.values())
  assert 2 in sides.values()
  copies = sum('/test/' in name for name, _ in phantoms.render('knee_oa', **PHANTOMS))
  assert about['left_out'] == {'test knee cut out a second time (auto_test)': copies} and copies


def test_a_right_knee_has_its_fibula_on_the_left_of_the_picture():
  shown = []
  for path, radiograph in phantoms.render('knee_oa', images=20, size=96):
    below = radiograph.image[76:92].astype(float).mean(0)
    shown.append((below[14:26].mean() > below[70:82].mean()) == path.endswith('R.png'))
  assert np.mean(shown) >= 0.85


def test_knees_as_kaggle_unpacks_them_and_what_is_wrong_with_some(tmp_path):
  good = [f'{("train", "val", "test")[i % 3]}/{i % 5}/{9000000 + i // 2}{"LR"[i % 2]}.png' for i in range(100)]
  bad = ['train/0/9000099.png', 'train/5/9000098L.png', 'val/3/9000000L.png']  # no side, no such grade, a second grade
  again = ['auto_test/2/9000001_1.png', 'auto_test/2/9000001_2.png']
  write_knees(tmp_path / 'knee_oa/archive', [*good, *bad, *again])
  path = build.prepare('knee_oa', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert set(records) == {pathlib.PurePath(name).stem for name in good}
  assert read_rejects(path) == {('', 'file that is no image of this archive'), ('9000000L', 'duplicate image_id')}
  assert build.read_metadata(path)['left_out'] == {'test knee cut out a second time (auto_test)': 2}
  for number in range(50):
    assert len({records[f'{9000000 + number}{side}']['split'] for side in 'LR'}) == 1


@pytest.mark.skipif(not (REAL / 'knee_oa').exists(), reason='needs the real subset')
def test_real_knees(tmp_path):
  path = build.prepare('knee_oa', REAL, tmp_path / 'data')
  records = read_all(path)
  assert len(records) == 440 and not read_rejects(path)
  assert np.sum([record['present'] for record in records.values()], 0).tolist() == [88] * 5
  for record in records.values():
    grade, = (REAL / 'knee_oa').glob(f'*/*/{record["image_id"]}.png')
    assert record['present'][int(grade.parent.name)] == 1
    np.testing.assert_array_equal(record['image'][..., 0], np.asarray(PIL.Image.open(grade)))
