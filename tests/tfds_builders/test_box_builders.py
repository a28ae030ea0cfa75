"""Builders with grades and boxes: against the phantoms, with the quirks of the real archives, on real subsets."""

import collections
import dataclasses
import json
import math
import pathlib
import re
import shutil

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import pydicom
import pytest

from tests.support.archives import edit, list_objects, match_truth, read_all, read_rejects, write_png
from tests.support.paths import XRAYS
from tests.support.small_runs import PHANTOMS
from tfds_builders import build, phantoms
from tfds_builders.common import archives as downloads
from tfds_builders.common import boxes, coco_boxes, decoded, dicom, images, index, label_columns, records, splits
from tfds_builders.phantoms.archives import covid19_radiography, frac_atlas, tbx11k, vinbigdata_cxr
from tfds_builders.phantoms.exposure import bounding_box
from tfds_builders.phantoms.layout import save_dicom

# Boxes

def test_a_box_is_clipped_to_the_image_and_rejected_if_nothing_is_left():
  assert boxes.place_box('a', 10, 20, 30, 60, width=100, height=200) == (('a', 0.1, 0.1, 0.3, 0.3), None)
  assert boxes.place_box('a', -10, 150, 30, 260, 100, 200) == (('a', 0.75, 0.0, 1.0, 0.3), None)
  for sides, reason in (((10, 20, 10, 60), 'box without area'), ((30, 20, 10, 60), 'box without area'),
                        ((float('nan'), 20, 30, 60), 'box without area'), ((100, 20, 120, 60), 'box outside the image'),
                        ((10, -9, 30, 0), 'box outside the image')):
    assert boxes.place_box('a', *sides, 100, 200) == (None, reason)
  assert boxes.place_box('a', 10, 20, 30, 60, 0, 200) == (None, 'box of an image without size')


SQUARE = {'id': 1, 'file_name': 'a.png', 'width': 100, 'height': 100}
CLASSES = [{'id': 1, 'name': 'mass'}, {'id': 2, 'name': 'nodule'}]
MARK = {'id': 7, 'image_id': 1, 'category_id': 1, 'bbox': [10, 20, 10, 20]}
PLACED = ('mass', 0.2, 0.1, 0.4, 0.2)


def read_coco(folder, marks, images=(SQUARE,), categories=CLASSES, encoding='utf-8'):
  table = {'images': list(images), 'categories': list(categories), 'annotations': list(marks)}
  (folder / 'boxes.json').write_bytes(json.dumps(table, ensure_ascii=False).encode(encoding))
  return coco_boxes.read_coco(folder / 'boxes.json', ('mass', 'nodule', '3', 'Rundherd \u00fc'))


@pytest.mark.parametrize('images, categories, mark, placed', [
  ({'id': '1'}, {'id': 1.0}, {'image_id': 1, 'category_id': '1'}, PLACED),
  ({'id': 'a-1'}, {'id': 'x'}, {'image_id': ' a-1', 'category_id': 'x'}, PLACED),
  ({'id': 0}, {'id': '0'}, {'image_id': '0.0', 'category_id': 0.0}, PLACED),
  ({'id': 1.0}, {'name': 3}, {'image_id': '1'}, ('3', *PLACED[1:])),
  ({}, {'name': ' Rundherd u\u0308'}, {}, ('Rundherd \u00fc', *PLACED[1:])),
  ({'width': '100', 'height': 100.0}, {}, {'bbox': ['10', 20.0, '10', 20], 'iscrowd': None, 'id': None}, PLACED),
  ({}, {}, {'bbox': None, 'segmentation': [[10, 20, 20, 20, 20, 40], [12, 30, 15, 30, 15, 31]]}, PLACED),
  ({}, {}, {'bbox': [0, 0, 0, 0], 'segmentation': [[10, 20, 20, 20, 20, 40]]}, PLACED),
  ({}, {}, {'bbox': [], 'segmentation': [[10, 20, 20, 20, 20, 40]], 'iscrowd': False}, PLACED)])
@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_ids_names_and_numbers_of_a_coco_file_may_have_several_types(images, categories, mark, placed, encoding,
                                                                     tmp_path):
  drawn = read_coco(tmp_path, [MARK | mark], [SQUARE | images], [CLASSES[0] | categories], encoding)
  assert drawn.boxes == {'a.png': [placed]} and not drawn.rejected and not drawn.left_out


@pytest.mark.parametrize('bad, reason', [
  ({'category_id': None}, 'annotation without category_id'), ({'category_id': True}, 'annotation without category_id'),
  ({'category_id': {}}, 'annotation without category_id'), ({'category_id': '1x'}, "unknown box class: '1x'"),
  ({'category_id': 3}, "unknown box class: '3'"),
  ({'image_id': 5}, "box without image: no image or several have the id '5'"),
  ({'image_id': None}, 'annotation without image_id'), ({'image_id': [1]}, 'annotation without image_id'),
  ({'bbox': None}, 'annotation without bbox'), ({'bbox': [1, 2, 3]}, 'annotation without bbox'),
  ({'bbox': {'x': 1}}, 'annotation without bbox'),
  ({'bbox': None, 'segmentation': {'counts': 'ab'}}, 'annotation without bbox, four numbers, or polygons'),
  ({'bbox': [10, 20, 0, 5]}, 'box without area: [10.0, 20.0, 0.0, 5.0]'),
  ({'bbox': [10, 20, -5, 5]}, 'box without area'),
  ({'bbox': [10, math.nan, 5, 5]}, 'box without area'), ({'bbox': ['x', 20, 5, 5]}, 'box without area'),
  ({'bbox': [200, 20, 5, 5]}, 'box outside the image'), ({'bbox': [-50, 20, 5, 5]}, 'box outside the image')])
def test_one_bad_annotation_among_many_is_rejected_and_named(bad, reason, tmp_path):
  drawn = read_coco(tmp_path, [MARK, MARK | {'id': 8} | bad, MARK])
  (name, told), = drawn.rejected
  assert drawn.boxes == {'a.png': [PLACED] * 2} and told.startswith(reason)
  assert f': annotations[1] (id 8){" of a.png" if name else ""}' in told and bool(name) == ('image_id' not in bad)
  with pytest.raises(ValueError, match='none of its 2 annotations gives a box. First: .*annotations.0. .id 8'):
    read_coco(tmp_path, [MARK | {'id': 8} | bad] * 2)


@pytest.mark.parametrize('images, categories, marks, complaint', [
  ([SQUARE], [], [MARK], r'has 1 annotations but no categories. Add "categories": \[{"id": 1, "name": "NAME"}\]'),
  ([SQUARE], None, [MARK], "'categories' must be a list of objects"),
  ([SQUARE], ['mass'], [MARK], "'categories' must be a list of objects"),
  ([SQUARE], [{'name': 'mass'}], [MARK], r'categories\[0\], {"name": "mass"}, needs an "id"'),
  ([SQUARE], [{'id': 1}], [MARK], r'categories\[0\], {"id": 1}, needs a "name"'),
  ([SQUARE], [{'id': 1, 'name': 'a\nb'}], [MARK], 'needs a "name": a text of one line'),
  ([SQUARE], [{'id': 1, 'name': 'mass'}, {'id': '1', 'name': 'nodule'}], [MARK], "has the id of 'mass'"),
  ([SQUARE], CLASSES, [MARK | {'bbox': [60, 60, 80, 90]}, MARK | {'bbox': [10, 20, 30, 40]}],
   '1 of 2 boxes fit as left, top, right, bottom but not as x, y, width, height'),
  ([SQUARE], CLASSES, [MARK | {'bbox': [10, 20, 30, 40], 'area': 400}], 'fit as left, top, right, bottom'),
  ([SQUARE], CLASSES, [MARK | {'bbox': [0.1, 0.2, 0.3, 0.4]}], 'no box has more than one pixel .*Are they fractions'),
  ([SQUARE | {'width': 0, 'height': 0}], CLASSES, [MARK], 'First: box of an image without size'),
  ([SQUARE, SQUARE | {'file_name': 'b.png'}], CLASSES, [MARK], 'First: box without image: no image or several')])
def test_a_coco_file_that_cannot_be_read_for_certain_is_refused(images, categories, marks, complaint, tmp_path):
  table = {'images': images, 'annotations': marks} | ({} if categories is None else {'categories': categories})
  (tmp_path / 'boxes.json').write_text(json.dumps(table))
  with pytest.raises(ValueError, match=complaint) as caught:
    coco_boxes.read_coco(tmp_path / 'boxes.json', ('mass', 'nodule'))
  assert f'{tmp_path / "boxes.json"} is not a COCO file with boxes' in str(caught.value)


def test_boxes_that_reach_a_little_out_of_their_image_or_fill_it_are_x_y_width_height(tmp_path):
  marks = [MARK | {'bbox': bbox} for bbox in ([0, 0, 100, 100], [50, 60, 52, 45], [10, 20, 30, 40])]
  assert len(read_coco(tmp_path, marks).boxes['a.png']) == 3
  assert len(read_coco(tmp_path, [MARK | {'bbox': [0, 0, 1, 1]}], [SQUARE | {'width': 2, 'height': 2}]).boxes) == 1


def test_boxes_that_reach_far_out_of_their_image_are_clipped_and_told(tmp_path, caplog):
  marks = [MARK | {'bbox': bbox} for bbox in ([80, 10, 60, 40], [10, 20, 30, 40], [98, 0, 5, 9], [-30, 0, 60, 9])]
  assert len(read_coco(tmp_path, marks).boxes['a.png']) == 4
  assert '2 boxes reach out of their image and are clipped (first: annotations[0] (id 7) of a.png, [80' in caplog.text


def test_two_files_with_one_id_have_no_boxes(tmp_path):
  images = [SQUARE, SQUARE | {'file_name': 'b.png'}, SQUARE | {'id': 2, 'file_name': 'c.png'}]
  drawn = read_coco(tmp_path, [MARK, MARK | {'image_id': 2}], images)
  assert drawn.boxes == {'a.png': [], 'b.png': [], 'c.png': [PLACED]}
  assert [(name, reason.split(':')[0]) for name, reason in drawn.rejected] == [
    ('a.png', 'duplicate image id in the table'), ('b.png', 'duplicate image id in the table'),
    ('', 'box without image')]


def test_crowds_and_boxes_without_area_do_not_decide_the_format(tmp_path):
  assert read_coco(tmp_path, [MARK | {'bbox': [0, 0, 0.5, 0.5], 'iscrowd': 1}]).boxes == {'a.png': []}
  with pytest.raises(ValueError, match='none of its 1 annotations gives a box. First: box without area'):
    read_coco(tmp_path, [MARK | {'bbox': [0, 0, 0, 0]}])


def test_crowds_are_counted_by_image_and_give_no_box(tmp_path):
  drawn = read_coco(tmp_path, [MARK | {'iscrowd': crowd} for crowd in (1, True, '1', 0, None, '0')])
  assert drawn.boxes == {'a.png': [PLACED] * 3} and drawn.left_out == {'a.png': 3}
  assert read_coco(tmp_path, [MARK | {'iscrowd': 1}]).boxes == {'a.png': []}


def compare_boxes(record, radiograph, kinds, atol):
  """The boxes of a record are those drawn, in pixels; returns their number."""
  height, width = radiograph.image.shape
  stored = sorted((kinds[kind], *(box * [height, width, height, width])) for kind, box in list_objects(record))
  expected = sorted((kind, y, x, y + h, x + w) for kind, x, y, w, h in radiograph.boxes if kind in kinds)
  assert [row[0] for row in stored] == [row[0] for row in expected], record['image_id']
  if expected:
    np.testing.assert_allclose([row[1:] for row in stored], [row[1:] for row in expected], atol=atol)
  return len(expected)


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
    assert record['label_mask'].all() and record['present'].tolist() == [float(i == radiograph.grade) for i in range(5)]
    assert record['patient'] == f'knee_oa:{9000001 + radiograph.patient}' and record['part'] == 'knee'
    seen[radiograph.grade] += 1
  assert set(seen) == set(range(5))
  sides = collections.Counter(record['patient'] for record in records.values())
  assert 2 in sides.values()
  copies = sum('/test/' in name for name, _ in phantoms.render('knee_oa', **PHANTOMS))
  assert about['left_out'] == {'test knee cropped a second time (auto_test)': copies} and copies


def test_a_right_knee_has_its_fibula_on_the_left_of_the_picture():
  shown = []
  for path, radiograph in phantoms.render('knee_oa', images=20, size=96):
    below = radiograph.image[76:92].astype(float).mean(0)
    shown.append((below[14:26].mean() > below[70:82].mean()) == path.endswith('R.png'))
  assert np.mean(shown) >= 0.85


def test_knees_in_the_layout_of_kaggle_with_bad_files(tmp_path):
  good = [f'{("train", "val", "test")[i % 3]}/{i % 5}/{9000000 + i // 2}{"LR"[i % 2]}.png' for i in range(100)]
  bad = ['train/0/9000099.png', 'train/5/9000098L.png', 'val/3/9000000L.png']  # no side, no such grade, a second grade
  again = ['auto_test/2/9000001_1.png', 'auto_test/2/9000001_2.png']
  write_knees(tmp_path / 'knee_oa/archive', [*good, *bad, *again])
  path = build.prepare('knee_oa', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert set(records) == {pathlib.PurePath(name).stem for name in good}
  reason = 'duplicate image_id with other values'
  assert read_rejects(path) == {('', 'not an image of this archive'), ('9000000L', reason)}
  assert f'9000000L,val/3/9000000L.png,{reason}' in (path / 'rejects.csv').read_text()
  assert build.read_metadata(path)['left_out'] == {'test knee cropped a second time (auto_test)': 2}
  for number in range(50):
    assert len({records[f'{9000000 + number}{side}']['split'] for side in 'LR'}) == 1


@pytest.mark.skipif(not (XRAYS / 'knee_oa').exists(), reason='needs the real subset')
def test_real_knees(tmp_path):
  path = build.prepare('knee_oa', XRAYS, tmp_path / 'data')
  records = read_all(path)
  assert len(records) == 440 and not read_rejects(path)
  assert np.sum([record['present'] for record in records.values()], 0).tolist() == [88] * 5
  for record in records.values():
    grade, = (XRAYS / 'knee_oa').glob(f'*/*/{record["image_id"]}.png')
    assert record['present'][int(grade.parent.name)] == 1
    np.testing.assert_array_equal(record['image'][..., 0], np.asarray(PIL.Image.open(grade)))


# TBX11K

@pytest.fixture(scope='module')
def tbx_lists(archives, tmp_path_factory):
  """Prepared from a phantom archive without its JSON tables."""
  folder = tmp_path_factory.mktemp('tbx')
  shutil.copytree(archives / 'tbx11k', folder / 'tbx11k')
  shutil.rmtree(folder / 'tbx11k/TBX11K/annotations/json')
  return build.prepare('tbx11k', folder, folder / 'data')


@pytest.mark.parametrize('source', ['json', 'xml'])
def test_tuberculosis_boxes_and_labels_are_those_drawn(source, prepared, request):
  path = build.locate('tbx11k', prepared) if source == 'json' else request.getfixturevalue('tbx_lists')
  about, records, drawn, both = build.read_metadata(path), read_all(path), 0, 0
  for record, radiograph in match_truth('tbx11k', records):
    active, latent = (kind in radiograph.findings for kind in tbx11k.CATEGORIES[:2])
    if radiograph.patient == tbx11k.UNBOXED:
      assert list_objects(record) == [] and record['image_id'].startswith('tb')
      assert record['present'].tolist() == [1, 0, 0, 0] and record['label_mask'].tolist() == [True, False, False, False]
      continue
    rounded = 0.01 if source == 'json' else 1.5 / tbx11k.ORIGINAL_SCALE  # XML boxes are in whole pixels
    drawn += compare_boxes(record, radiograph, about['box_classes'], atol=rounded)
    both += active and latent
    ill = active or latent
    assert record['present'].tolist() == [ill, active, latent, bool(radiograph.findings) and not ill]
    assert record['label_mask'].tolist() == [True, True, True, not ill]
  assert drawn > 5 and both
  assert about['left_out'] == {'test image without label': 2, 'image of another archive (imgs/extra)': 1}
  assert not read_rejects(path)


def write_tbx(root, healthy=60, tuberculous=20):
  """Archive of grey below `root`/TBX11K with one active box, 40 x 20 pixels from (10, 30) in 100 x 200, on each."""
  names = [*(f'health/h{i:04d}.png' for i in range(healthy)), *(f'tb/tb{i:04d}.png' for i in range(tuberculous))]
  for name in names:
    write_png(root / 'TBX11K/imgs' / name, (25, 50))
  table = {
    'categories': [{'id': i, 'name': name} for i, name in enumerate(tbx11k.CATEGORIES, 1)],
    'images': [{'id': i, 'file_name': name, 'width': 200, 'height': 100} for i, name in enumerate(names, 1)],
    'annotations': [{'id': i, 'image_id': i, 'category_id': 1, 'bbox': [10.0, 30.0, 40.0, 20.0]}
                    for i, name in enumerate(names, 1) if name.startswith('tb')]}
  return root / 'TBX11K', table


def test_the_paper_and_official_splits_of_tbx(tmp_path):
  """On file lists and a table with the published numbers of images."""
  counts = {'train': {'health': 3000, 'sick': 3000, 'tb': 600}, 'val': {'health': 800, 'sick': 800, 'tb': 200}}
  names, listed = {}, {}
  for side, kinds in counts.items():
    names[side] = [f'{kind}/{kind[0]}{side}{i:04d}.png' for kind, images in kinds.items() for i in range(images)]
    (tmp_path / 'lists').mkdir(exist_ok=True)
    (tmp_path / f'lists/TBX11K_{side}.txt').write_text('\n'.join(names[side]))
    images = [{'id': i, 'file_name': name, 'width': 512, 'height': 512} for i, name in enumerate(names[side])]
    write_table(tmp_path, {'categories': [], 'images': images, 'annotations': []}, side)
    tables = {f'lists/TBX11K_{side}.txt': 1, f'annotations/json/TBX11K_{side}.json': 1}
    listed |= tables | {f'imgs/{name}': 1 for name in names[side]}
  listed |= {f'imgs/test/{i}.png': 1 for i in range(3302)}
  entries, rejects, left_out = build.load('tbx11k').read_archive(tmp_path, listed)
  assert not rejects and left_out == {'test image without label': 3302}
  assert collections.Counter(entry.official_split for entry in entries) == {'train': 6600, 'test': 1800}
  official = records.assign_splits(entries)['official']
  assert {image for image, split in official.items() if split == 'test'} == {
    entry.image_id for entry in entries if f'{entry.path.parent.name}/{entry.path.name}' in names['val']}
  # Healthy and sick images are in all three splits: a tenth of 3,000, of 3,000 and of 600.
  assert collections.Counter(official.values()) == {'train': 5940, 'validation': 660, 'test': 1800}
  paper = splits.split_by_paper((entry.image_id, entry.paper_group) for entry in entries)
  assert collections.Counter(paper.values()) == {'train': 640, 'validation': 80, 'test': 80}
  assert all(image_id.startswith('t') for image_id in paper)


def write_table(root, table, side='trainval'):
  (root / 'annotations/json').mkdir(parents=True, exist_ok=True)
  (root / f'annotations/json/TBX11K_{side}.json').write_text(json.dumps(table))


def test_bad_boxes_and_images_of_tbx_are_listed_with_their_reasons(tmp_path):
  root, table = write_tbx(tmp_path, healthy=200)
  marks = table['annotations']
  marks[0]['bbox'] = [10, 30, 0, 20]
  marks[1]['bbox'] = [200, 30, 20, 20]
  marks[2]['category_id'] = 3
  marks[3]['image_id'] = 9999
  marks[4]['bbox'] = [180, -10, 40, 30]  # cut at the border
  table['images'].append({'id': 700, 'file_name': 'tb/tb0777.png', 'width': 200, 'height': 100})
  table['images'].append(table['images'][0])
  write_png(root / 'imgs/health/h0888.png')
  write_table(root, table)
  path = build.prepare('tbx11k', tmp_path, tmp_path / 'data')
  assert read_rejects(path) == {
    ('tb0000', 'box without area'), ('tb0001', 'box outside the image'), ('tb0002', 'unknown box class'),
    ('', 'box without image'), ('tb0777', 'row without image'), ('h0888', 'image without row'),
    ('h0000', 'duplicate image id in the table')}
  records = read_all(path)
  assert len(records) == 220
  assert [list_objects(records[f'tb000{i}']) for i in range(4)] == [[]] * 4
  (_, box), = list_objects(records['tb0004'])
  np.testing.assert_allclose(box, [0, 0.9, 0.2, 1])
  (_, box), = list_objects(records['tb0005'])
  np.testing.assert_allclose(box, [0.3, 0.05, 0.5, 0.25])


def test_a_third_table_that_repeats_the_other_two_adds_nothing(tmp_path):
  root, table = write_tbx(tmp_path)
  write_table(root, table)
  for side, rest in (('train', 0), ('val', 1)):
    images = [image for image in table['images'] if (image['id'] % 4 == 0) == rest]
    numbers = {image['id'] for image in images}
    marks = [mark for mark in table['annotations'] if mark['image_id'] in numbers]
    write_table(root, {**table, 'images': images, 'annotations': marks}, side)
  path = build.prepare('tbx11k', tmp_path, tmp_path / 'data')
  assert sorted(len(list_objects(record)) for record in read_all(path).values()) == [0] * 60 + [1] * 20
  assert not read_rejects(path)


def test_a_changed_box_is_another_archive(tmp_path):
  root, table = write_tbx(tmp_path)
  write_table(root, table)
  build.prepare('tbx11k', tmp_path, tmp_path / 'data')
  edit(root / 'annotations/json/TBX11K_trainval.json', '"bbox": [10.0', '"bbox": [11.0')
  with pytest.raises(build.ArchiveChanged):
    build.prepare('tbx11k', tmp_path, tmp_path / 'data')


def test_unreadable_tables_are_errors_of_one_line(tmp_path, capsys):
  root, table = write_tbx(tmp_path)
  for spoil in (lambda: None, lambda: write_table(root, {**table, 'images': [{'id': 1}]}),
                lambda: write_table(root, {**table, 'annotations': [{**table['annotations'][0], 'bbox': [1, 2]}]}),
                lambda: write_table(root, 'tuberculosis')):
    spoil()
    assert build.main(['tbx11k', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]) == 2
    error = capsys.readouterr().err.strip()
    assert '\n' not in error and re.search('no boxes$|is not a COCO file', error)


def test_an_image_whose_xml_is_broken_is_left_out(tbx_lists, archives, tmp_path):
  shutil.copytree(archives / 'tbx11k', tmp_path / 'tbx11k')
  shutil.rmtree(tmp_path / 'tbx11k/TBX11K/annotations/json')
  sheet = sorted((tmp_path / 'tbx11k/TBX11K/annotations/xml').iterdir())[0]
  sheet.write_text('<annotation>')
  path = build.prepare('tbx11k', tmp_path, tmp_path / 'data')
  assert read_rejects(path) == {(sheet.stem, 'unreadable XML')}
  assert set(read_all(tbx_lists)) - set(read_all(path)) == {sheet.stem}


# COVID-19 radiography

def test_classes_and_lungs_are_those_drawn(prepared):
  path = build.locate('covid19_radiography', prepared)
  about, records = build.read_metadata(path), read_all(path)
  assert about['relation'] == 'exclusive' and about['mask'] == ['background', 'lung']
  seen = set()
  for name, radiograph in phantoms.render('covid19_radiography', **PHANTOMS):
    record, kind = records[pathlib.PurePath(name).stem], pathlib.PurePath(name).parts[1]
    assert [title for title, yes in zip(about['findings'], record['present'], strict=True) if yes] == [kind]
    assert (radiograph.findings == set()) == (kind == 'Normal')
    seen.add(kind)
    mask, lungs = record['mask'][..., 0], radiograph.masks['lung_left'] | radiograph.masks['lung_right']
    assert mask.shape == lungs.shape
    if radiograph.patient == covid19_radiography.UNMASKED:
      assert (mask == label_columns.UNANNOTATED).all()
      continue
    assert set(np.unique(mask)) == {0, 1}
    overlap = ((mask == 1) & lungs).sum() / ((mask == 1) | lungs).sum()
    assert overlap >= 0.95  # the mask was stored smaller than the image, as in the archive
  assert seen == set(about['findings']) and not read_rejects(path)


def test_both_releases_of_the_covid_archive_are_read(tmp_path):
  mask = np.zeros((10, 15), np.uint8)
  mask[2:8, 3:6] = 255
  for i in range(40):
    write_png(tmp_path / f'new/COVID/images/COVID-{i}.png')
    write_png(tmp_path / f'new/Viral Pneumonia/images/Viral Pneumonia-{i}.png')
    write_png(tmp_path / f'old/COVID/COVID ({i}).png')
    write_png(tmp_path / f'old/NORMAL/NORMAL ({i}).png')
    write_png(tmp_path / f'old/Viral Pneumonia/Viral Pneumonia ({i}).png')
    (tmp_path / 'new/COVID/masks').mkdir(exist_ok=True)
    PIL.Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(tmp_path / f'new/COVID/masks/COVID-{i}.png')
  write_png(tmp_path / 'new/COVID/masks/COVID-99.png')
  (tmp_path / 'new/COVID.metadata.xlsx').write_bytes(b'table')
  (tmp_path / 'new/COVID/images/notes.txt').write_text('notes')
  new = build.prepare('covid19_radiography', tmp_path / 'new', tmp_path / 'data_new')
  records = read_all(new)
  assert len(records) == 80 and read_rejects(new) == {
    ('COVID-99', 'mask without image'), ('', 'not an image of this archive')}
  np.testing.assert_array_equal(records['COVID-3']['mask'][..., 0], np.kron(mask > 0, np.ones((2, 2))))
  assert (records['Viral Pneumonia-3']['mask'] == label_columns.UNANNOTATED).all()
  old = read_all(build.prepare('covid19_radiography', tmp_path / 'old', tmp_path / 'data_old'))
  assert len(old) == 120 and old['NORMAL (7)']['present'].tolist() == [0, 0, 1, 0]


# VinBigData

def test_boxes_of_three_readers_become_those_drawn(prepared):
  path, drawn, alone = build.locate('vinbigdata_cxr', prepared), 0, 0
  about, records = build.read_metadata(path), read_all(path)
  for record, radiograph in match_truth('vinbigdata_cxr', records):
    drawn += compare_boxes(record, radiograph, about['box_classes'], atol=0.01)
    stated = dict(zip(about['findings'], zip(record['present'], record['label_mask'], strict=True), strict=True))
    for place, (kind, *_) in enumerate(radiograph.boxes):  # the second finding is one reader's
      assert stated.pop(kind) == ((1, True) if place == 0 else (0, False))
      alone += place
    assert set(stated.values()) == {(0, True)}
  assert drawn > 10 and alone
  hidden = sum(path.startswith('test/') for path, _ in phantoms.render('vinbigdata_cxr', **PHANTOMS))
  assert about['left_out'] == {'test image without label': hidden} and hidden and not read_rejects(path)


def write_vin(root, rows, images=100):
  """Archive of grey DICOM files, 30 high and 60 wide; those without a row get one of each reader, 'No finding'."""
  named = {row.split(',')[0] for row in rows}
  for i in range(images):
    save_dicom(root / f'train/{i:032x}.dicom', np.full((30, 60), i, np.uint8), bits=8, photometric='MONOCHROME2')
  rows = [f'{int(name, 16):032x},{rest}' for name, rest in (row.split(',', 1) for row in rows)]
  rows += [f'{i:032x},No finding,14,R{reader},,,,'
           for i in range(images) if f'{i:x}' not in named for reader in (1, 2, 3)]
  head = 'image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max'
  (root / 'train.csv').write_text('\n'.join([head, *rows, '']))


def test_readers_boxes_are_merged_only_if_they_are_of_one_class_and_overlap(tmp_path):
  write_vin(tmp_path / 'vinbigdata_cxr', [
    '0,Cardiomegaly,3,R1,10,10,30,20', '0,Cardiomegaly,3,R2,12,10,32,20', '0,Cardiomegaly,3,R3,8,13,28,23',
    '1,ILD,5,R1,10,10,30,20', '1,Infiltration,6,R2,10,10,30,20', '1,ILD,5,R3,31,10,51,20',
    '2,ILD,5,R1,10,10,30,20', '2,ILD,5,R1,11,10,31,20', '2,No finding,14,R2,,,,', '2,No finding,14,R3,,,,'])
  path = build.prepare('vinbigdata_cxr', tmp_path, tmp_path / 'data')
  about, records = build.read_metadata(path), read_all(path)

  def objects(number):
    return [(about['box_classes'][kind], *np.round(box * [30, 60, 30, 60], 3).tolist())
            for kind, box in list_objects(records[f'{number:032x}'])]

  def state(number, finding):
    place, record = about['findings'].index(finding), records[f'{number:032x}']
    return record['present'][place], record['label_mask'][place]

  assert objects(0) == [('Cardiomegaly', 11, 10, 21, 30)] and state(0, 'Cardiomegaly') == (1, True)
  assert objects(1) == [('ILD', 10, 10, 20, 30), ('ILD', 10, 31, 20, 51), ('Infiltration', 10, 10, 20, 30)]
  assert state(1, 'ILD') == (1, True) and state(1, 'Infiltration') == (0, False)
  assert objects(2) == [('ILD', 10, 10, 20, 30), ('ILD', 10, 11, 20, 31)] and state(2, 'ILD') == (0, False)
  assert objects(3) == [] and records[f'{3:032x}']['label_mask'].all()


def write_vindr(root, images=24):
  """PhysioNet's layout: three readers of each training image, a consensus on each test image. Every third image has a
  heart that all readers report, every fourth a box of a class that Kaggle lacks."""
  findings = build.load('vinbigdata_cxr').FINDINGS
  for folder, readers in (('train', ('R1', 'R2', 'R3')), ('test', ('',))):
    boxes_of, labels = [], []
    for i in range(images):
      name = f'{folder}{i}'
      save_dicom(root / f'{folder}/{name}.dicom', np.full((30, 60), i, np.uint8), bits=8, photometric='MONOCHROME2')
      for reader in readers:
        who = f'{name},{reader}' if reader else name
        labels.append(','.join([who, *(str(int(finding == 'Cardiomegaly' and i % 3 == 0)) for finding in findings)])
                      + ',0,0,0')
        boxes_of += [f'{who},{box}' for wanted, box in (
          (i % 3 == 0, 'Cardiomegaly,10,10,30,20'), (i % 4 == 0, 'Edema,1,1,9,9')) if wanted] or [
            f'{who},No finding,,,,']
    head = 'image_id,rad_id' if folder == 'train' else 'image_id'
    other = 'Other diseases' if folder == 'train' else 'Other disease'
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/annotations_{folder}.csv').write_text(
      '\n'.join([f'{head},class_name,x_min,y_min,x_max,y_max', *boxes_of, '']))
    (root / f'annotations/image_labels_{folder}.csv').write_text(
      '\n'.join([','.join([head, *findings, 'COPD', other, 'No finding']), *labels, '']))


def test_a_label_of_vindr_that_is_neither_0_nor_1_is_a_reject(tmp_path):
  root = tmp_path / 'vinbigdata_cxr'
  write_vindr(root)
  edits = (('train1,R1,0', 'train1,R1,False'), ('train2,R1,0', 'train2,R1,0.0'), ('train4,R2,0', 'train4,R2,?'))
  for old, new in edits:
    edit(root / 'annotations/image_labels_train.csv', old, new)
  files = downloads.list_files(build.load('vinbigdata_cxr').ARCHIVE, root)
  entries, rejects, _ = build.load('vinbigdata_cxr').read_archive(root, files)
  assert len(entries) == 48  # of train4, the two other readers count
  assert [(one.image_id, one.reason) for one in rejects] == [
    ('train4', "label that is neither 0 nor 1: Aortic enlargement is '?'")]


def test_vindr_of_physionet_is_read_with_its_test_set(tmp_path):
  write_vindr(tmp_path / 'vinbigdata_cxr')
  builder = build.read_tables('vinbigdata_cxr', tmp_path)
  entries, official = builder.entries, builder.split_rules['official']
  assert not builder.rejects
  assert builder.info.metadata['left_out'] == {'box of a class that Kaggle does not have': 6 * 3 + 6}
  assert len(entries) == 48
  for entry in entries:
    ill = int(re.sub(r'\D', '', entry.image_id)) % 3 == 0
    assert [name for name, *_ in entry.objects] == ill * ['Cardiomegaly'], entry
    assert all(entry.fields['label_mask']) and sum(entry.fields['present']) == ill
    assert not ill or entry.objects[0][1:] == pytest.approx((1 / 3, 1 / 6, 2 / 3, 1 / 2))
  assert {name for name, split in official.items() if split == 'test'} == {f'test{i}' for i in range(24)}
  assert collections.Counter(official.values()) == {'train': 21, 'validation': 3, 'test': 24}


def test_kaggles_vinbigdata_has_no_official_split_and_an_archive_without_tables_is_refused(tmp_path):
  root = tmp_path / 'vinbigdata_cxr'
  write_vin(root, [], images=12)
  builder = build.read_tables('vinbigdata_cxr', tmp_path)
  assert len(builder.entries) == 12 and not builder.split_rules['official']
  (root / 'train.csv').unlink()
  with pytest.raises(ValueError, match='has neither train.csv .Kaggle. nor all of annotations/annotations_train.csv'):
    build.read_tables('vinbigdata_cxr', tmp_path)


def test_bad_rows_and_files_of_vinbigdata_are_listed_with_their_reasons(tmp_path):
  root = tmp_path / 'vinbigdata_cxr'
  write_vin(root, ['0,ILD,5,R1,,,,', '1,ILD,5,R1,70,10,80,20', '2,Gout,5,R1,10,10,20,20', 'fff,ILD,5,R1,1,1,2,2',
                   '3,ILD,5,R1,10,10,20,20', '4,ILD,5,R1,50,20,70,40'], images=200)
  (root / f'train/{3:032x}.dicom').write_bytes(b'no DICOM')
  (root / f'train/{9:032x}.dicom').write_bytes((root / f'train/{9:032x}.dicom').read_bytes()[:-700])
  save_dicom(root / f'train/{999:032x}.dicom', np.zeros((30, 60), np.uint8), bits=8, photometric='MONOCHROME2')
  path = build.prepare('vinbigdata_cxr', tmp_path, tmp_path / 'data')
  assert {(image_id.lstrip('0'), reason) for image_id, reason in read_rejects(path)} == {
    ('', 'box without area'), ('1', 'box outside the image'), ('2', 'unknown box class'),
    ('fff', 'row without image'), (f'{999:x}', 'image without row'), ('3', 'unreadable DICOM'),
    ('9', 'unreadable DICOM')}
  records = read_all(path)
  assert len(records) == 198
  (_, box), = list_objects(records[f'{4:032x}'])
  np.testing.assert_allclose(box, [2 / 3, 5 / 6, 1, 1], atol=1e-6)


def test_the_classes_of_the_phantom_are_those_of_the_builder():
  assert vinbigdata_cxr.CLASSES == build.load('vinbigdata_cxr').FINDINGS


def test_the_size_is_read_from_the_header_alone(tmp_path):
  path = tmp_path / 'image.dicom'
  save_dicom(path, np.zeros((30, 60), np.uint8), bits=8, photometric='MONOCHROME2')
  header = pydicom.dcmread(path)
  header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian  # might inflate without a limit
  header.save_as(tmp_path / 'deflated.dicom')
  path.write_bytes(path.read_bytes()[:-1000])  # of the pixels
  assert dicom.read_size(path) == (30, 60)
  for broken in (b'', b'no DICOM', (tmp_path / 'deflated.dicom').read_bytes()):
    path.write_bytes(broken)
    with pytest.raises(decoded.Unreadable, match='DICOM'):
      dicom.read_size(path)


# FracAtlas

def test_fractures_and_their_boxes_are_those_drawn(prepared):
  path = build.locate('frac_atlas', prepared)
  about, records, drawn = build.read_metadata(path), read_all(path), collections.Counter()
  assert about['box_classes'] == ['fracture'] and about['box_negatives'] == about['findings'] == ['fractured']
  for record, radiograph in match_truth('frac_atlas', records):
    shape, displayed = frac_atlas.displayed(radiograph, radiograph)
    assert record['image'].shape == (*shape, 1)
    radiograph = dataclasses.replace(radiograph, image=np.empty(shape), boxes=[('fracture', *box) for box in displayed])
    boxes_drawn = compare_boxes(record, radiograph, about['box_classes'], atol=0.01)
    assert record['present'] == [bool(boxes_drawn)] and record['label_mask'] == [True]
    parts = frac_atlas.PARTS[radiograph.part]
    assert record['part'] == (parts[0] if len(parts) == 1 else 'mixed') and record['view'] == 'frontal'
    drawn[radiograph.patient] += boxes_drawn
  assert len(records) == 23 and len(read_rejects(path)) == 1  # CONTRADICTED
  assert drawn[frac_atlas.TURNED] == 1 and max(drawn.values()) == 2
  rows = index.read(path)
  assert all(row['paper'] for row in rows) and not any(row['official'] for row in rows)


def write_frac_atlas(folder, images=80, orientation=1):
  """Grey JPEG files of 40 x 20 pixels, of which the first eight have a box. Returns (root, table, COCO table)."""
  root, table = folder / 'frac_atlas/FracAtlas', [frac_atlas.HEADER]
  coco = {'images': [], 'annotations': [], 'categories': [{'id': 0, 'name': 'fractured'}]}
  exif = PIL.Image.Exif()
  exif[PIL.ExifTags.Base.Orientation] = orientation
  for i in range(images):
    name = f'IMG{i:07d}.jpg'
    path = root / 'images' / ('Fractured' if i < 8 else 'Non_fractured') / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new('L', (40, 20), 90).save(path, exif=exif)
    table.append(f'{name},1,0,0,0,0,0,0,{int(i < 8)},{int(i < 8)},1,0,0')
    if i < 8:
      coco['images'].append({'id': i, 'file_name': name, 'width': 40, 'height': 20})
      coco['annotations'].append({'id': i, 'image_id': i, 'category_id': 0, 'bbox': [4.0, 2.0, 12.0, 6.0]})
  return root, table, coco


def prepare_frac_atlas(folder, root, table, coco):
  (root / 'dataset.csv').write_text('\n'.join([*table, '']))
  (root / 'Annotations/COCO JSON').mkdir(parents=True, exist_ok=True)
  (root / 'Annotations/COCO JSON/COCO_fracture_masks.json').write_text(json.dumps(coco))
  return build.prepare('frac_atlas', folder, folder / 'data', tolerated=0.2)


def test_contradictions_and_bad_files_of_frac_atlas_are_listed_with_their_reasons(tmp_path):
  root, table, coco = write_frac_atlas(tmp_path)
  table[1] = 'IMG0000000.jpg,1,1,0,0,1,0,0,0,1,0,1,0'  # the table contradicts the folder and the box
  table[3] = 'IMG0000002.jpg,0,0,1,0,0,0,0,1,1,0,1,1'
  table[4] = 'IMG0000003.jpg,1,0,0,1,1,0,0,1,1,1,0,0'
  table[21] = table[21].replace(',0,0,1,0,0', ',1,0,1,0,0')  # as does this one, the other way round
  del table[31]
  table += [table[12], 'IMG0000999.jpg,1,0,0,0,0,0,0,0,0,1,0,0']
  coco['images'] += [{'id': 50, 'file_name': 'IMG0000050.jpg', 'width': 40, 'height': 20},
                     {'id': 51, 'file_name': 'IMG0000998.jpg', 'width': 40, 'height': 20}]
  coco['annotations'] += [{'id': 8, 'image_id': 50, 'category_id': 0, 'bbox': [4, 2, 12, 6]},
                          {'id': 9, 'image_id': 1, 'category_id': 0, 'bbox': [41, 2, 12, 6]}]
  cut = root / 'images/Non_fractured/IMG0000040.jpg'
  cut.write_bytes(cut.read_bytes()[:-20])
  path = prepare_frac_atlas(tmp_path, root, table, coco)
  assert read_rejects(path) == {
    ('IMG0000000', 'folder and table disagree'), ('IMG0000020', 'folder and table disagree'),
    ('IMG0000030', 'image without row'), ('IMG0000011', 'duplicate row'), ('IMG0000999', 'row without image'),
    ('IMG0000998', 'row without image'), ('IMG0000050', 'box on an image without a fracture'),
    ('IMG0000001', 'box outside the image'), ('IMG0000040', 'unreadable image')}
  records = read_all(path)
  assert len(records) == 75 and sum(record['present'][0] for record in records.values()) == 7
  (_, box), = list_objects(records['IMG0000001'])
  np.testing.assert_allclose(box, [0.1, 0.1, 0.4, 0.4])
  seen = {name: (records[name]['part'], records[name]['view']) for name in ('IMG0000001', 'IMG0000002', 'IMG0000003')}
  assert list(seen.values()) == [('hand', 'frontal'), ('hip', 'lateral+oblique'), ('mixed', 'frontal')]


def test_a_table_of_frac_atlas_that_pandas_saved_again_gives_the_same_entries(tmp_path):
  root, table, coco = write_frac_atlas(tmp_path, images=12)
  prepare_frac_atlas(tmp_path, root, table, coco)
  module = build.load('frac_atlas')
  before = module.read_archive(root, downloads.list_files(module.ARCHIVE, root))
  rows = [row.replace(',1', ',1.0').replace(',0', ',0.0') for row in table[1:]]
  (root / 'dataset.csv').write_text(';'.join(table[0].split(',')) + '\n' + '\n'.join(rows).replace(',', ';') + '\n;;\n')
  assert module.read_archive(root, downloads.list_files(module.ARCHIVE, root)) == before


def test_frac_atlas_without_its_table_or_boxes_is_refused(tmp_path, capsys):
  root, table, coco = write_frac_atlas(tmp_path)
  command = ['frac_atlas', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]
  assert build.main(command) == 2
  assert 'no dataset.csv and no Annotations/COCO JSON/COCO_fracture_masks.json' in capsys.readouterr().err
  prepare_frac_atlas(tmp_path, root, table, coco)
  (root / 'Annotations/COCO JSON/COCO_fracture_masks.json').unlink()
  assert build.main([*command, '--overwrite']) == 2
  assert 'has no Annotations/COCO JSON' in capsys.readouterr().err


@pytest.mark.parametrize('orientation', range(1, 9))
def test_boxes_drawn_on_the_displayed_image_lie_where_they_were_drawn(orientation, tmp_path):
  """Pillow displays the image, and a rectangle that is marked in it must be the box of the image that is read."""
  stored = np.zeros((20, 40), np.uint8)
  stored[2:8, 4:16] = 255
  exif = PIL.Image.Exif()
  exif[PIL.ExifTags.Base.Orientation] = orientation
  PIL.Image.fromarray(stored).save(tmp_path / 'a.jpg', exif=exif, quality=100)
  with PIL.Image.open(tmp_path / 'a.jpg') as image:
    shown = np.asarray(PIL.ImageOps.exif_transpose(image)) > 127
  x, y, width, height = bounding_box(shown)
  box, _ = boxes.place_box('fractured', x, y, x + width, y + height, shown.shape[1], shown.shape[0])
  row = dict.fromkeys(frac_atlas.HEADER.split(','), '0') | {'fractured': '1'}
  (_, *sides), = build.load('frac_atlas').make_entry(tmp_path / 'a.jpg', row, [box]).objects
  found = images.read(tmp_path / 'a.jpg')
  y0, x0, y1, x1 = np.round(np.array(sides) * [*found.shape, *found.shape]).astype(int)
  assert (found[y0:y1, x0:x1] > 127).all() and (found > 127).sum() == (y1 - y0) * (x1 - x0) == 6 * 12
