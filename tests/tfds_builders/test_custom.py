"""Custom datasets: a table and a folder of images become a dataset like any other."""

import json
import math
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import PIL.Image
import pytest

from mtpret_jax import stages
from mtpret_jax.data.sources import MissingSplit, open_source
from tests.support import dicoms, small_runs
from tests.support.archives import edit, list_objects, read_all, read_rejects, write_clinic, write_png
from tests.support.paths import ROOT
from tfds_builders import build, inspect
from tfds_builders.common import archives as downloads
from tfds_builders.common import coco_boxes, label_columns, plain_text
from tfds_builders.custom import box_file, custom


def run_refused(folder, name='clinic'):
  """The error line of the command, which must fail with one line."""
  command = [sys.executable, '-m', 'tfds_builders.build', name, '--archives', folder, '--data_dir', folder / 'data']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode in (1, 2)
  line, = done.stderr.strip().split('\n')
  return line


def test_a_table_and_a_folder_become_a_dataset_of_that_name(tmp_path):
  root = write_clinic(tmp_path)
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert len(records) == 24 and not read_rejects(path)
  assert build.read_metadata(path)['findings'] == ['fracture', 'cast'] and 'uncertain' not in build.read_metadata(path)
  record = records['a/0']
  np.testing.assert_array_equal(record['image'][..., 0], np.asarray(PIL.Image.open(root / 'images/a/0.png')))
  assert (record['patient'], record['source'], record['view'], record['sex'], record['age']) == (
    'clinic:p0', 'clinic', 'frontal', 'F', 40)
  assert record['present'].tolist() == [1, 0] and record['label_mask'].tolist() == [True, True]
  assert 'uncertain' not in record
  assert records['a/1']['present'].tolist() == [0, 0] and records['a/1']['label_mask'].tolist() == [False, True]
  for patient in range(12):
    assert records[f'a/{2 * patient}']['split'] == records[f'a/{2 * patient + 1}']['split']


def test_uncertain_labels_are_unknown_and_marked_where_a_table_has_any(tmp_path):
  write_clinic(tmp_path, head='image,patient,mass,cast',
               row=lambda i: f'a/{i}.png,p{i},{(1, 0, -1, "")[i % 4]},{i % 2}')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert [records[f'a/{i}']['uncertain'].tolist() for i in range(4)] == [
    [False, False], [False, False], [True, False], [False, False]]
  assert [records[f'a/{i}']['label_mask'].tolist() for i in range(4)] == [
    [True, True], [True, True], [False, True], [False, True]]
  assert build.read_metadata(path)['uncertain'] and custom.describe(tmp_path / 'clinic')['uncertain']


def test_the_split_column_is_the_official_split(tmp_path):
  write_clinic(tmp_path)
  build.prepare('clinic', tmp_path, tmp_path / 'data')
  source = open_source('clinic', tmp_path / 'data', '256', 'test', 'official')
  assert {source.records[i]['image_id'] for i in range(len(source))} == {b'a/0', b'a/1', b'a/2', b'a/3'}
  with pytest.raises(MissingSplit, match='clinic has no train images under the split rule .official., only test'):
    open_source('clinic', tmp_path / 'data', '256', 'train', 'official')


def test_several_custom_datasets_live_side_by_side(tmp_path):
  write_clinic(tmp_path)
  write_clinic(tmp_path, 'ward', head='image,patient,value (mm)', row=lambda i: f'a/{i}.png,p{i},{i / 2}')
  for name in ('clinic', 'ward', 'clinic'):
    build.prepare(name, tmp_path, tmp_path / 'data')
  clinic, ward = (build.locate(name, tmp_path / 'data') for name in ('clinic', 'ward'))
  assert build.read_metadata(ward)['value'] == {'name': 'value', 'unit': 'mm'}
  assert build.read_metadata(ward)['findings'] == [] and len(read_all(clinic)) == 24
  assert {image: record['value'].tolist() for image, record in read_all(ward).items()} == {
    f'a/{i}': [i / 2] for i in range(24)}


def test_masks_and_boxes_are_read(tmp_path):
  root = write_clinic(tmp_path)
  (root / 'masks/a').mkdir(parents=True)
  mask = np.zeros((20, 30), np.uint8)
  mask[5:15, 10:20] = 255
  PIL.Image.fromarray(mask).save(root / 'masks/a/3.png')
  (root / 'boxes.json').write_text(json.dumps({
    'categories': [{'id': 7, 'name': 'break'}],
    'images': [{'id': number, 'file_name': f'a/{number}.png', 'width': 30, 'height': 20} for number in (3, 12, 5, 6)],
    'annotations': [{'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [10, 5, 10, 10]},
                    {'id': 2, 'image_id': 6, 'category_id': 7, 'bbox': [10, 5, 0, 10]}]}))
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  about, records = build.read_metadata(path), read_all(path)
  assert about['mask'] == ['background', 'foreground'] and about['box_classes'] == ['break']
  assert about['negative_images'] == ['a/12', 'a/5']  # a/6 has a box that is rejected, a/4 is not listed
  np.testing.assert_array_equal(records['a/3']['mask'][..., 0], mask > 0)
  assert (records['a/4']['mask'] == label_columns.UNANNOTATED).all() and records['a/4']['mask'].shape == (20, 30, 1)
  (kind, box), = list_objects(records['a/3'])
  assert kind == 0 and list_objects(records['a/4']) == []
  np.testing.assert_allclose(box, [5 / 20, 10 / 30, 15 / 20, 20 / 30], rtol=1e-6)
  seen, _ = inspect.survey(path)
  assert sum(seen.table['mask of foreground'].values()) == sum(seen.table['box of break'].values()) == 1


def test_masks_of_several_classes_hold_class_indices(tmp_path):
  root = write_clinic(tmp_path, patients=15)
  (root / 'masks/a').mkdir(parents=True)
  (root / 'classes.txt').write_text('background\nulna\nradius\n')
  for i in range(30):
    mask = np.full((20, 30), i % 3, np.uint8)
    mask[0] = label_columns.UNANNOTATED
    PIL.Image.fromarray(mask + 3 * np.uint8(i == 8)).save(root / f'masks/a/{i}.png')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert build.read_metadata(path)['mask'] == ['background', 'ulna', 'radius']
  assert read_rejects(path) == {('a/8', 'mask with unknown class')}
  records = read_all(path)
  for i in set(range(30)) - {8}:
    assert np.unique(records[f'a/{i}']['mask']).tolist() == [i % 3, label_columns.UNANNOTATED]


def test_images_without_any_label_are_enough_for_stage_1(tmp_path):
  write_clinic(tmp_path, head='image,patient', row=lambda i: f'a/{i}.png,p{i}')
  records = read_all(build.prepare('clinic', tmp_path, tmp_path / 'data'))
  assert len(records) == 24 and 'present' not in records['a/0'] and math.isnan(records['a/0']['age'])


def test_bad_rows_and_files_are_listed_in_rejects(tmp_path):
  root = write_clinic(tmp_path, patients=60)
  (root / 'images/a/5.png').unlink()
  PIL.Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / 'images/stray.png')
  (root / 'images/.DS_Store').write_bytes(b'junk')
  (root / 'images/a/9.png').write_bytes(b'no image')
  edit(root / 'labels.csv', 'a/8.png,p4,', 'a/8.png,,')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert read_rejects(path) == {('a/5', 'row without image'), ('stray', 'image without row'),
                                ('a/9', 'unreadable image'), ('a/8', 'row without patient')}


@pytest.mark.parametrize('old, new, complaint', [
  ('image,patient,', 'image,person,', "has no column 'patient' (all images of a patient must be in one split"),
  ('image,', 'file,', "has no column 'image'"),
  ('cast', 'fracture', "every column needs a name of its own, see ['fracture']"),
  ('a/0.png,p0,frontal,female,40,1,', 'a/0.png,p0,frontal,female,40,yes,',
   "line 2: fracture is 'yes': write 1, 0, or nothing if unknown"),
  ('female,41', 'female,old', "line 3: age is 'old': write a number"),
  ('female,41', f'female,{"9" * 5000}', f"line 3: age is '{'9' * 80}'... of 5000 characters: write a number"),
  ('female,41', 'female,1e308', "line 3: age is '1e308': write a number from 0 to 120"),
  ('p0,frontal,female,40,1,', f'p0,frontal,female,40,{"9" * 5000},', f"fracture is '{'9' * 80}'... of 5000 characters"),
  ('female,42', 'x,42', "line 4: sex is 'x': write F, M or nothing"),
  (',0,test', ',0,holdout', "line 2: split is 'holdout': write train, validation, test or nothing")])
def test_a_mistake_in_the_table_is_an_error_of_one_line_that_says_where(old, new, complaint, tmp_path):
  root = write_clinic(tmp_path)
  edit(root / 'labels.csv', old, new)
  with pytest.raises(custom.InvalidDataset) as caught:
    build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert complaint in str(caught.value) and 'labels.csv' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('old, new', [
  ('a/1.png', '\n\na/1.png'), ('p0,frontal,female,40', 'p0,"front\n\nal",female,40')])
def test_a_mistake_below_blank_lines_or_a_cell_of_several_lines_is_reported_with_its_line(old, new, tmp_path):
  root = write_clinic(tmp_path)
  edit(root / 'labels.csv', old, new)
  edit(root / 'labels.csv', 'female,41', 'female,old')
  with pytest.raises(custom.InvalidDataset, match="line 5: age is 'old'"):
    build.prepare('clinic', tmp_path, tmp_path / 'data')


@pytest.mark.parametrize('cell', ['1e39', '-1e10', 'nan', '', 'two'])
def test_a_value_that_no_record_can_hold_is_a_mistake(cell):
  row = {'image': '0.png', 'patient': 'p', 'value (mm)': cell}
  with pytest.raises(custom.InvalidDataset, match=r'line 2: value \(mm\) is .*: write a number from -1000000000 to'):
    custom.read_row(row, '0.png', pathlib.Path('0.png'), 'labels.csv line 2')
  for good in ('-2.5', '0', '1e9'):  # a T-score is below 0
    entry = custom.read_row(row | {'value (mm)': good}, '0.png', pathlib.Path('0.png'), 'labels.csv line 2')
    assert entry.fields['value'] == [float(good)]


def read(root):
  """({image_id: entry}, rejects, left out, negatives) of a custom dataset; no pixel is read."""
  *_, classes, box_classes = custom.read_schema(root)
  files = downloads.list_files(custom.make_archive('clinic'), root)
  (entries, rejects, left_out), negatives = custom.read_contents(root, files, classes, box_classes)
  assert len({entry.image_id for entry in entries}) == len(entries)
  return {entry.image_id: entry for entry in entries}, rejects, left_out, negatives


def write_table(folder, text, names):
  """A custom dataset with this table and images of 20 x 30 at these paths."""
  for name in names:
    path = folder / 'clinic/images' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new('L', (30, 20)).save(path, 'PNG')
  (folder / 'clinic/labels.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
  return folder / 'clinic'


# What a table may look like

PLAIN = 'image,patient,view,age,value (mm),cast\n1.png,p1,a b,43.5,1.25,1\n2.png,p2,,44,2,0\n3.png,p3,,,3.5,\n'


def separate(text, mark):
  return text.replace(',', mark)


@pytest.mark.parametrize('text', [
  PLAIN.encode('utf-8-sig'), PLAIN.encode('utf-16'), PLAIN.encode('utf-32'), PLAIN.replace('\n', '\r\n'),
  PLAIN.replace('\n', '\r'), separate(PLAIN, ';'), separate(PLAIN, '|'), separate(PLAIN, '\t').encode('utf-16'),
  'sep=;\n' + separate(PLAIN, ';'), separate(PLAIN, ';').replace('.5', ',5').replace('1.25', '1,25'),
  separate(PLAIN, '\t').replace('43.5', '43,5'), separate(PLAIN, ';').replace('value (mm)', 'value (mm, mean)'),
  PLAIN + ',,,,,\n' * 9, PLAIN + '\n \n,,\n', PLAIN.replace('\n', ',,\n'), '\n\n' + PLAIN.replace('\n', '\n\n'),
  PLAIN.replace('image,patient', ' Image , PATIENT ').replace('age', 'Age').replace('value', 'Value'),
  '\n'.join(f'{"" if i == 0 else i - 1},{line}' for i, line in enumerate(PLAIN.splitlines())),
  '\n'.join(f'{"Unnamed: 0" if i == 0 else i},{line}' for i, line in enumerate(PLAIN.splitlines())),
  PLAIN.replace('p1', '"p1"').replace('a b', '"a\nb"'),
  PLAIN.replace('p1', '\u200bp1\xa0').replace('image', '\ufeffimage'),
  PLAIN.replace(',1\n', ',True\n').replace(',0\n', ',False\n'),
  PLAIN.replace(',1\n', ',1.0\n').replace(',0\n', ',0.0\n'),
  PLAIN.replace('p2,,', 'p2,<NA>,').replace('p3,,,3.5,', 'p3,None,NaN,3.5,nan'),
  PLAIN.replace('2.png', 'images\\2.png').replace('3.png', './images/3.PNG')])
def test_every_form_of_a_table_gives_the_same_entries(text, tmp_path):
  entries, rejects, _, _ = read(write_table(tmp_path, text, ['1.png', '2.png', '3.png']))
  assert not rejects
  facts = {name: (entry.patient, entry.fields.get('view', ''), entry.fields['age'], entry.fields['value'],
                  entry.fields['present'], entry.fields['label_mask']) for name, entry in entries.items()}
  assert repr(facts) == repr({
    '1': ('p1', 'a b', 43.5, [1.25], [1.0], [True]), '2': ('p2', '', 44.0, [2.0], [0.0], [True]),
    '3': ('p3', '', math.nan, [3.5], [0.0], [False])})


@pytest.mark.parametrize('text, complaint', [
  (PLAIN.replace('a b', 'Röntgen').encode('cp1252'), r'is not UTF-8 text: .* line 2. Save it as UTF-8 .* iconv'),
  (b'PK\3\4' + PLAIN.encode(), 'is not UTF-8 text but an Excel workbook'),
  (PLAIN.encode('utf-16-be'), 'UTF-16 without a byte order mark'), (b'', "has no column 'image'"),
  (PLAIN.replace('43.5', '"43,500"'), "line 2: age is '43,500': write a number .*, with a decimal point"),
  (separate(PLAIN, ';').replace('44', '44,5'), "line 2: age is '43.5', but line 3 has a decimal comma"),
  (PLAIN.replace('image', 'Image,image').replace('.png', '.png,x'), 'every column needs a name of its own'),
  (PLAIN.replace('view', '').replace('a b', 'x'), 'every column needs a name of its own'),
  (PLAIN.replace('p2', '1.23457E+11'), "line 3: patient is '1.23457E.11', a long number that a program has shortened"),
  (PLAIN.replace(',1\n', ',1,5\n'), 'line 2 has 7 cells, not 6'), (PLAIN.replace(',1.25', ''), 'line 2 has 5 cells'),
  (PLAIN.replace('a b', '"a\n\nb"').replace(',2,0', ',two,0'), r"line 5: value \(mm\) is 'two'"),
  (PLAIN.replace('a b', '"a\n\nb"').replace('43.5', 'old'), "line 2: age is 'old'"),
  ('\r\r' + PLAIN.replace('\n', '\r').replace('43.5', 'old'), "line 4: age is 'old'")])
def test_a_table_that_cannot_be_read_for_certain_is_refused_with_its_line(text, complaint, tmp_path):
  root = write_table(tmp_path, text, ['1.png', '2.png', '3.png'])
  with pytest.raises(ValueError, match=complaint) as caught:
    read(root)
  assert str(root / 'labels.csv') in str(caught.value) and not plain_text.GARBLED.search(str(caught.value))


def test_an_image_or_patient_that_pandas_wrote_as_missing_is_a_reject(tmp_path):
  words = ['nan', 'None', 'NULL', '<NA>', 'NaN', 'n/a', '']
  rows = ['1.png,p', *(f'{i}.png,{word}' for i, word in enumerate(words, 2)), 'nan,p2']
  root = write_table(tmp_path, '\n'.join(['image,patient', *rows]), [f'{i}.png' for i in range(1, 9)])
  entries, rejects, _, _ = read(root)
  assert set(entries) == {'1'}
  assert {(reject.image_id, reject.reason) for reject in rejects} == {
    *((str(i), f'row without patient: line {i + 1}') for i in range(2, 9)), ('', 'row without image: line 10')}


def test_two_spellings_of_a_patient_are_one_or_are_told(tmp_path, caplog):
  ids = ['7', '7.0', '8.0', 'M\u00fcller', 'Mu\u0308ller', 'q', 'Q', '007']
  root = write_table(tmp_path, 'image,patient\n' + ''.join(f'{i}.png,{name}\n' for i, name in enumerate(ids)),
                     [f'{i}.png' for i in range(8)])
  entries, _, _, _ = read(root)
  assert [entries[str(i)].patient for i in range(8)] == ['7', '7', '8.0', 'M\u00fcller', 'M\u00fcller', 'q', 'Q', '007']
  assert "patients '7' and '007'; 'q' and 'Q' count as different" in caplog.text


@pytest.mark.parametrize('there, written', [
  ('Mu\u0308ller/1.png', 'M\u00fcller/1.png'), ('M\u00fcller/1.png', 'Mu\u0308ller/1.png'), ('a/1.png', 'A/1.PNG'),
  ('a/1.png', 'a\\1.png'), ('a b/1.png', 'a%20b/1.png'), ('100%25.png', '100%25.png'),
  ('a/1.png', '/home/me/x/a/1.png'), ('a/1.png', 'C:\\x\\images\\a\\1.png'), ('a/1.png', '../../images/a//1.png')])
def test_a_path_may_be_spelled_in_several_ways(there, written, tmp_path):
  root = write_table(tmp_path, f'image,patient\n"{written}",p\n', [there])
  write_png(root / 'masks' / unicodedata.normalize('NFD', there))
  write_boxes(root, [written], [box_on(0)])
  entries, rejects, _, _ = read(root)
  entry, = entries.values()
  assert not rejects and entry.mask and len(entry.objects) == 1 and entry.path == root / 'images' / there


def test_a_path_that_fits_two_images_fits_none(tmp_path):
  root = write_table(tmp_path, 'image,patient\nA/B.png,p\nA/b.png,p\n', ['a/b.png', 'A/b.png'])
  entries, rejects, _, _ = read(root)
  assert entries['A/b'].path == root / 'images/A/b.png'
  assert ('A/B', 'row without image: line 2') in {(reject.image_id, reject.reason) for reject in rejects}


@pytest.mark.parametrize('name', ['scan.L', '1.2.840.1', 'Dr.Smith', 'a%20b'])
def test_a_name_may_lack_its_ending(name, tmp_path):
  there = f'{name.replace("%20", " ")}.png'
  entries, rejects, _, _ = read(write_table(tmp_path, f'image,patient\n{name},p\n', [there]))
  assert [entry.path.name for entry in entries.values()] == [there] and not rejects


def test_a_name_with_its_ending_comes_before_one_without(tmp_path):
  root = write_table(tmp_path, 'image,patient\n1,p\n1.png,q\n2,r\n', ['1.png', '2.png', '2.jpg'])
  entries, rejects, _, _ = read(root)
  assert {key: entry.patient for key, entry in entries.items()} == {'1': 'q'}
  assert {reject.reason for reject in rejects} >= {'row without image: line 2', 'row without image: line 4'}


def test_images_that_differ_in_their_ending_only_share_neither_id_nor_mask(tmp_path):
  names = ['1.png', '1.jpg', '2.v1.png', '2.v2.png', 'scan.7/IM1', 'scan.7/IM2', '1.2.840.1', '1.2.840.2', '3.png']
  root = write_table(tmp_path, 'image,patient\n' + ''.join(f'{name},p\n' for name in names), names)
  for mask in ('1.png', '1.jpg.png', '2.v2.png', 'scan.7/IM2.png', '3.jpg', '3.png', '4.png', '1.2.840.2.png'):
    write_png(root / 'masks' / mask)  # the reject of masks/1.png says what to do
  entries, rejects, _, _ = read(root)
  assert set(entries) == {'1.png', '1.jpg', '2.v1', '2.v2', 'scan.7/IM1', 'scan.7/IM2', '1.2.840.1', '1.2.840.2', '3'}
  masks = {name: entry.mask.args[0] for name, entry in entries.items() if entry.mask}
  assert {name: path.relative_to(root / 'masks').as_posix() for name, path in masks.items()} == {
    '1.jpg': '1.jpg.png', '2.v2': '2.v2.png', 'scan.7/IM2': 'scan.7/IM2.png', '3': '3.png',
    '1.2.840.2': '1.2.840.2.png'}
  assert {(reject.path, reject.reason.split(':')[0]) for reject in rejects} == {
    ('masks/1.png', 'mask of several images'), ('masks/3.jpg', 'second mask of an image'),
    ('masks/4.png', 'mask without image')}


@pytest.mark.parametrize('name', [
  'Thumbs.db', 'THUMBS.DB', 'ehthumbs.db', 'desktop.ini', 'Desktop.ini', '.DS_Store', '._1.png', '.directory',
  '__MACOSX', 'Icon\r', '~$labels.xlsx', '.~lock.labels.csv#', 'labels.csv~', '~WRD0001.tmp', '$RECYCLE.BIN', '@eaDir',
  'System Volume Information', '1.png:Zone.Identifier', '.Trash-1000', '.nfs0001', 'lost+found',
  '1.pngZone.Identifier', 'Thumbs.db:encryptable', 'Picasa.ini', '#recycle', '@Recycle', '@Recently-Snapshot',
  'RECYCLER'])
def test_what_desktops_write_is_junk(name):
  assert downloads.is_junk(name) and not downloads.is_junk(f'a{name.strip("~.")}.png')


def test_versions_of_a_table_side_by_side_are_told(tmp_path, caplog):
  root = write_clinic(tmp_path, patients=3)
  for name in ('labels (1).csv', 'labels_old.csv', 'labels.xlsx', 'labels.csv~', 'desktop.ini', 'README.md'):
    (root / name).write_text('image,patient\n')
  (root / 'Masks').mkdir()
  custom.warn_of_others(root)
  assert 'not read: Masks, labels (1).csv, labels.xlsx, labels_old.csv. Read are labels.csv' in caplog.text
  (root / 'labels.csv').unlink()
  with pytest.raises(downloads.ArchiveMissing, match=r'Save labels \(1\).csv or labels.xlsx .* as labels.csv \(CSV'):
    build.find_root('clinic', tmp_path)


@pytest.mark.parametrize('patients', [1, 2])
def test_fewer_than_three_patients_are_refused(patients, tmp_path):
  write_clinic(tmp_path, patients=patients)
  with pytest.raises(ValueError, match=f'of {patients} patients, .* needs at least three patients'):
    build.read_tables('clinic', tmp_path)


# boxes.json

def write_boxes(root, names, annotations, width=30, height=20, **other):
  """boxes.json of images with ids 0, 1, ... and one category."""
  images = [{'id': i, 'file_name': name, 'width': width, 'height': height} for i, name in enumerate(names)]
  (root / 'boxes.json').write_text(json.dumps(
    {'categories': [{'id': 1, 'name': 'break'}], 'images': images, 'annotations': annotations} | other))


def box_on(image, bbox=(3, 4, 6, 8), **other):
  return {'id': image, 'image_id': image, 'category_id': 1, 'bbox': list(bbox)} | other


def write_three(tmp_path):
  return write_table(tmp_path, 'image,patient\n1.png,p\n2.png,q\n3.png,r\n', ['1.png', '2.png', '3.png'])


def test_swapped_sizes_are_not_called_corners(tmp_path):
  """These boxes end outside of the swapped size, and would fit it as left, top, right, bottom."""
  root = write_three(tmp_path)
  write_boxes(root, ['1.png'], [box_on(0) | {'bbox': [8, 2, 18, 9]}], 20, 30)
  with pytest.raises(custom.InvalidDataset, match='another shape: the file states 20 x 30'):
    read(root)


@pytest.mark.parametrize('width, height', [(20, 30), (30, 30), (30, 18), (300, 180)])
def test_boxes_drawn_on_another_shape_than_the_image_has_are_rejected(width, height, tmp_path):
  root = write_three(tmp_path)
  write_boxes(root, ['1.png', '2.png'], [box_on(0), box_on(1)], width, height)
  with pytest.raises(custom.InvalidDataset, match=(
      'none of its 2 annotations gives a box. First: box drawn on an image of another shape: the file states '
      rf'{width} x {height}, the image has 30 x 20 .*: annotations\[0\] \(id 0\) of 1.png')):
    read(root)
  coco = json.loads((root / 'boxes.json').read_text())
  coco['images'][1] |= {'width': 30, 'height': 20}
  (root / 'boxes.json').write_text(json.dumps(coco))
  entries, rejects, _, negatives = read(root)
  assert not entries['1'].objects and entries['2'].objects and not negatives
  assert [reject.image_id for reject in rejects] == ['1']


@pytest.mark.parametrize('scale, told', [(1, ''), (0.1, '1 images have more or fewer pixels than boxes.json states'),
                                         (7.03, 'first: 1.png, stated 211 x 141, is 30 x 20'), (None, '')])
def test_boxes_are_relative_to_the_stated_size_or_else_the_images_own(scale, told, tmp_path, caplog):
  root = write_three(tmp_path)
  size = [None, None] if scale is None else [round(side * scale) for side in (30, 20)]
  write_boxes(root, ['1.png'], [box_on(0, [side * (scale or 1) for side in (3, 4, 6, 8)])], *size)
  entries, rejects, _, _ = read(root)
  ((kind, *sides),) = entries['1'].objects
  assert not rejects and kind == 'break' and sides == pytest.approx([0.2, 0.1, 0.6, 0.3], abs=0.01)
  assert told in caplog.text and bool(told) == bool(caplog.text)


def test_the_size_of_an_image_is_that_of_the_upright_image(tmp_path):
  exif = PIL.Image.Exif()
  for orientation in (1, 6):
    exif[0x112] = orientation
    for name in ('a.jpg', 'a.png', 'a.tif'):
      PIL.Image.new('L', (30, 20)).save(tmp_path / name, exif=exif)
      assert box_file.read_size(tmp_path / name) == ((30, 20) if orientation == 1 else (20, 30))
  dicoms.save(dicoms.make(np.zeros((20, 30), np.uint16)), tmp_path / 'a.dcm')
  assert box_file.read_size(tmp_path / 'a.dcm') == (30, 20)
  (tmp_path / 'a.png').write_bytes(b'no image')
  assert box_file.read_size(tmp_path / 'a.png') is box_file.read_size(tmp_path / 'absent.png') is None


def test_a_crowd_is_left_out_and_its_image_is_no_negative(tmp_path):
  root = write_three(tmp_path)
  write_boxes(root, ['1.png', '2.png', '3.png'], [box_on(0), box_on(0, iscrowd=1), box_on(1, iscrowd=True)])
  entries, rejects, left_out, negatives = read(root)
  assert [len(entry.objects) for entry in entries.values()] == [1, 0, 0] and negatives == ['3'] and not rejects
  assert left_out == {coco_boxes.CROWD_LEFT_OUT: 2}


def test_an_image_that_the_file_of_boxes_lists_without_id_is_a_reject_and_no_negative(tmp_path):
  root = write_three(tmp_path)
  write_boxes(root, ['1.png', '2.png', '3.png'], [box_on(0), box_on(2, bbox=[3, 4, 0, 8])])
  edit(root / 'boxes.json', '"id": 1, "file_name": "2', '"id": null, "file_name": "2')
  _, rejects, _, negatives = read(root)
  assert not negatives and [(reject.image_id, reject.path, reject.reason) for reject in rejects] == [
    ('2', 'boxes.json', 'image without id: images[1] (id null) has null'),
    ('3', 'boxes.json', 'box without area: [3.0, 4.0, 0.0, 8.0]: annotations[1] (id 2) of 3.png')]


def test_a_file_of_boxes_may_cover_more_images_than_there_are(tmp_path):
  root = write_three(tmp_path)
  write_boxes(root, ['1.png', *(f'elsewhere/{i}.png' for i in range(99))], [box_on(i) for i in range(100)])
  entries, rejects, left_out, negatives = read(root)
  assert entries['1'].objects and not rejects and not negatives
  assert left_out == {'image of boxes.json that is not in images/': 99}


def test_boxes_of_other_images_only_are_an_error(tmp_path):
  root = write_three(tmp_path)
  write_boxes(root, ['train/x.png', 'val/y.png'], [box_on(0), box_on(1)])
  with pytest.raises(custom.InvalidDataset, match='has 2 annotations, but none gives a box of an image in labels.csv'):
    read(root)


def test_the_command_reports_mistakes_in_one_line(tmp_path):
  root = write_clinic(tmp_path)
  (root / 'boxes.json').write_text('[1, 2]')
  assert 'boxes.json is not a COCO file' in run_refused(tmp_path)
  line = run_refused(tmp_path, 'klinic')
  assert "unknown dataset 'klinic'" in line and 'klinic/labels.csv' in line


def test_a_name_with_other_characters_is_refused(tmp_path):
  write_clinic(tmp_path, 'My-Clinic')
  with pytest.raises(downloads.ArchiveMissing, match='small letters'):
    build.prepare('My-Clinic', tmp_path, tmp_path / 'data')


def test_a_changed_table_is_noticed_and_a_deleted_one_is_fine(tmp_path):
  root = write_clinic(tmp_path)
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  edit(root / 'labels.csv', 'female,41', 'female,51')
  with pytest.raises(build.ArchiveChanged, match='--overwrite'):
    build.prepare('clinic', tmp_path, tmp_path / 'data')
  root.rename(tmp_path / 'elsewhere')
  assert build.prepare('clinic', tmp_path, tmp_path / 'data') == path


def test_a_run_pretrains_on_a_custom_dataset(tmp_path, one_block, capsys):
  write_clinic(tmp_path, patients=24)
  config = small_runs.make_pretrain()  # its step is one that other tests have compiled
  config.data.update(dir=str(tmp_path / 'data'), archives=str(tmp_path), datasets=('clinic',))
  config.workdir = str(tmp_path / 'run')
  stages.run(config)
  assert 'clinic' in capsys.readouterr().out and (tmp_path / 'run/results.json').exists()


def test_a_run_on_an_unknown_dataset_is_refused(tmp_path):
  command = [sys.executable, '-m', 'tests.support.small_runs', '--config=tests/support/small_runs.py:pretrain',
             f'--config.data.dir={tmp_path / "data"}', f'--config.workdir={tmp_path / "run"}',
             "--config.data.datasets=('klinic',)"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2 and "unknown dataset 'klinic'" in done.stderr and 'Traceback' not in done.stderr


# One of several classes, and grades

def write_graded(folder, column, cells):
  text = ''.join(f'{number}.png,p{number},{cell}\n' for number, cell in enumerate(cells))
  return write_table(folder, f'image,patient,{column}\n{text}', [f'{number}.png' for number in range(len(cells))])


@pytest.mark.parametrize('column, cells, relation, names, truth', [
  ('class', ['viral', 'normal', '', 'bacterial'], 'exclusive', ['bacterial', 'normal', 'viral'], [2, 1, None, 0]),
  ('Class (germ)', ['b', 'a', 'nan', 'b'], 'exclusive', ['a', 'b'], [1, 0, None, 1]),
  ('grade', ['3', '1', '1.0', ''], 'ordinal', ['grade 1', 'grade 2', 'grade 3'], [2, 0, 0, None]),
  ('grade (KL)', ['0', '1', '0', '1'], 'ordinal', ['KL 0', 'KL 1'], [0, 1, 0, 1]),
  ('grade (none < mild < severe)', ['severe', 'none', '', 'none'], 'ordinal', ['none', 'mild', 'severe'],
   [2, 0, None, 0])])
def test_a_column_of_classes_or_grades_says_which_one_is_right(column, cells, relation, names, truth, tmp_path):
  root = write_graded(tmp_path, column, cells)
  about = custom.describe(root)
  assert (about['relation'], about['findings']) == (relation, names)
  entries, rejects, _, _ = read(root)
  assert not rejects
  for number, index in enumerate(truth):
    fields = entries[str(number)].fields
    assert fields['present'] == [float(place == index) for place in range(len(names))]
    assert fields['label_mask'] == [index is not None] * len(names)
    assert entries[str(number)].stratum == ('' if index is None else names[index])


@pytest.mark.parametrize('column, cells, complaint', [
  ('class', ['Normal', 'normal', 'viral'], "class has 'Normal' and 'normal', which differ in case only"),
  ('class', ['normal', 'normal', ''], 'class has 1 different classes: it must have 2 to 100'),
  ('class,grade', ['a,1', 'b,2', 'a,1'], 'has the columns class, grade: keep one'),
  ('class,cast', ['a,1', 'b,0', 'a,1'], r"has the column 'class' and findings \(cast\): keep one of them"),
  ('grade', ['0', 'mild', '2'], "line 3: grade is 'mild': write a whole number .* grade .none < mild < severe."),
  ('grade', ['1.5', '2', '2'], "line 2: grade is '1.5'"),
  ('grade', ['1', '1', '1'], 'grade has 1 different grades'),
  ('grade (none < mild)', ['none', 'severe', 'mild'], "line 3: .* is 'severe': write one of none, mild, or nothing"),
  ('grade (none < < mild)', ['none', 'mild', 'mild'], 'must name each grade once')])
def test_classes_and_grades_that_cannot_be_read_say_what_to_write(column, cells, complaint, tmp_path):
  root = write_graded(tmp_path, column, cells)
  with pytest.raises(custom.InvalidDataset, match=complaint):
    read(root)


def test_the_relation_of_a_custom_dataset_is_in_its_metadata(tmp_path):
  write_graded(tmp_path, 'grade', ['0', '1', '2'] * 4)
  assert build.read_metadata(build.prepare('clinic', tmp_path, tmp_path / 'data'))['relation'] == 'ordinal'


@pytest.mark.parametrize('last, told', [('0,0,1', True), ('0,1,1', False), ('0,0,', False)])
def test_findings_of_which_always_one_is_present_hint_at_a_column_of_classes(last, told, tmp_path, caplog):
  cells = ['1,0,0', '0,1,0', '0,0,1'] * 7 + [last]
  read(write_graded(tmp_path, 'normal,bacteria,virus', cells))
  assert ('exactly one finding is present in every image' in caplog.text) == told
