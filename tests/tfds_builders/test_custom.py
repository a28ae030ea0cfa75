"""Custom datasets: a table and a folder of images become a dataset like any other."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from mtpret_jax.data.sources import MissingSplit, open_source
from tests.support.archives import edit, list_objects, read_all, read_rejects, write_clinic
from tests.support.paths import ROOT
from tfds_builders import build, inspect
from tfds_builders.common import archives as downloads
from tfds_builders.common import dataset
from tfds_builders.custom import custom


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
  assert build.read_metadata(path)['findings'] == ['fracture', 'cast']
  record = records['a/0']
  np.testing.assert_array_equal(record['image'][..., 0], np.asarray(PIL.Image.open(root / 'images/a/0.png')))
  assert (record['patient'], record['source'], record['view'], record['sex'], record['age']) == (
    'clinic:p0', 'clinic', 'frontal', 'F', 40)
  assert record['present'].tolist() == [1, 0] and record['label_mask'].tolist() == [True, True]
  assert records['a/1']['present'].tolist() == [0, 0] and records['a/1']['label_mask'].tolist() == [False, True]
  for patient in range(12):
    assert records[f'a/{2 * patient}']['split'] == records[f'a/{2 * patient + 1}']['split']


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
  assert (records['a/4']['mask'] == dataset.UNANNOTATED).all() and records['a/4']['mask'].shape == (20, 30, 1)
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
    mask[0] = dataset.UNANNOTATED
    PIL.Image.fromarray(mask + 3 * np.uint8(i == 8)).save(root / f'masks/a/{i}.png')
  path = build.prepare('clinic', tmp_path, tmp_path / 'data')
  assert build.read_metadata(path)['mask'] == ['background', 'ulna', 'radius']
  assert read_rejects(path) == {('a/8', 'mask with unknown class')}
  records = read_all(path)
  for i in set(range(30)) - {8}:
    assert np.unique(records[f'a/{i}']['mask']).tolist() == [i % 3, dataset.UNANNOTATED]


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


def pretrain(tmp_path, *flags):
  """The command of a small stage 1; its step is one that other tests have compiled."""
  command = [sys.executable, '-m', 'tests.support.small_runs', '--config=tests/support/small_runs.py:pretrain',
             f'--config.data.dir={tmp_path / "data"}', f'--config.workdir={tmp_path / "run"}', *flags]
  return subprocess.run(command, cwd=ROOT, env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
                        capture_output=True, text=True)


def test_a_run_pretrains_on_a_custom_dataset(tmp_path):
  write_clinic(tmp_path, patients=24)
  done = pretrain(tmp_path, f'--config.data.archives={tmp_path}', "--config.data.datasets=('clinic',)")
  assert done.returncode == 0, done.stderr
  assert 'clinic' in done.stdout and (tmp_path / 'run/results.json').exists()


def test_a_run_on_an_unknown_dataset_is_refused(tmp_path):
  done = pretrain(tmp_path, "--config.data.datasets=('klinic',)")
  assert done.returncode == 2 and "unknown dataset 'klinic'" in done.stderr and 'Traceback' not in done.stderr
