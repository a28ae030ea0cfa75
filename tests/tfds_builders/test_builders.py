"""Builders: against the phantoms, with the quirks of the real archives, and on real subsets."""

import collections
import itertools
import math
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from tests.support.archives import (
  SPLITS,
  edit,
  list_objects,
  match_truth,
  read_all,
  read_rejects,
  write_nih,
)
from tests.support.paths import ROOT, XRAYS
from tfds_builders import build
from tfds_builders.common import archives as downloads
from tfds_builders.common import index, label_columns, records
from tfds_builders.phantoms.archives import frac_atlas

# {archive: {finding of the phantom: findings of the record}}, where the names differ.
DRAWN_AS = {
  'kermany_pneumonia': {'Pneumonia': {'pneumonia', 'bacteria'}, 'Interstitial': {'pneumonia', 'virus'}},
  'mura': dict.fromkeys(('fracture', 'hardware', 'lesion'), {'abnormal'}),
}
JPEG = ('kermany_pneumonia', 'frac_atlas')  # archives whose files are JPEG: they lose some of the pixels' precision
ANNOTATION = {'present', 'label_mask', 'value', 'mask', 'objects'}


def read_bytes(path):
  return {file.name: file.read_bytes() for file in sorted(path.glob('*.array_record*'))}


# Against what the phantoms drew

@pytest.mark.parametrize('name', build.NAMES)
def test_every_image_of_a_phantom_archive_is_prepared(name, prepared):
  records = read_all(build.locate(name, prepared))
  truth = list(match_truth(name, records))
  assert len(records) == len(truth) > 0
  for record, radiograph in truth:
    is_turned = name == 'frac_atlas' and radiograph.patient == frac_atlas.TURNED  # as its EXIF says
    drawn = np.rot90(radiograph.image) if is_turned else radiograph.image
    assert record['image'].shape == (*drawn.shape, 1) and record['image'].dtype == np.uint8
    lost = np.abs(record['image'][..., 0].astype(int) - drawn).mean()
    assert lost < 4 if name in JPEG else lost == 0
    assert record['patient'].startswith(f'{name}:') and record['source'] == name


@pytest.mark.parametrize('name', ['nih_chest_xray', 'kermany_pneumonia', 'mura', 'frac_atlas'])
def test_findings_are_those_drawn(name, prepared):
  path = build.locate(name, prepared)
  names = build.read_metadata(path)['findings']
  seen = collections.Counter()
  for record, radiograph in match_truth(name, read_all(path)):
    drawn = set().union(*(DRAWN_AS.get(name, {}).get(finding, {finding}) for finding in radiograph.findings))
    stated = {finding for finding, present in zip(names, record['present'], strict=True) if present}
    assert stated == drawn, record['image_id']
    assert record['label_mask'][0]
    seen.update(stated or ['none'])
  assert len(seen) > 1


def test_boxes_are_those_drawn_to_the_pixel(prepared):
  path, drawn = build.locate('nih_chest_xray', prepared), 0
  kinds = build.read_metadata(path)['box_classes']
  for record, radiograph in match_truth('nih_chest_xray', read_all(path)):
    height, width = radiograph.image.shape
    stored = sorted((kinds[kind], *(box * [height, width, height, width])) for kind, box in list_objects(record))
    expected = sorted((kind, y, x, y + h, x + w) for kind, x, y, w, h in radiograph.boxes if kind in kinds)
    assert [row[0] for row in stored] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1:] for row in stored], [row[1:] for row in expected], atol=0.51)
    drawn += len(expected)
  assert drawn


def test_bone_ages_are_those_drawn(prepared):
  for record, radiograph in match_truth('rsna_bone_age', read_all(build.locate('rsna_bone_age', prepared))):
    assert record['value'] == [round(radiograph.value)] and record['sex'] == radiograph.sex
    assert math.isnan(record['age'])


def test_masks_are_those_drawn(prepared):
  for record, radiograph in match_truth('panoramic_dental', read_all(build.locate('panoramic_dental', prepared))):
    mask, drawn = record['mask'][..., 0], radiograph.masks['mandible']
    if record['image_id'] in ('22', '110'):  # torn in the archive
      assert set(np.unique(mask)) <= {1, label_columns.UNANNOTATED} and drawn[mask == 1].all()
      continue
    assert set(np.unique(mask)) == {0, 1}
    stored = mask == 1
    assert (stored & drawn).sum() / (stored | drawn).sum() >= 0.99


# The contract

def test_all_builders_have_one_schema(prepared):
  features = {name: dict(tfds.builder_from_directory(build.locate(name, prepared)).info.features)
              for name in build.NAMES}
  kinds = collections.defaultdict(set)
  for fields in features.values():
    for field, feature in fields.items():
      kinds[field].add((type(feature).__name__, str(feature.np_dtype)))
  assert all(len(kind) == 1 for kind in kinds.values()), kinds
  common_fields = {'image', 'image_id', 'patient', 'study', 'source', 'part', 'view', 'sex', 'age'}
  for fields in features.values():
    assert common_fields <= set(fields) <= common_fields | ANNOTATION
  assert set(kinds) == common_fields | ANNOTATION


@pytest.mark.parametrize('name', build.NAMES)
def test_no_patient_is_in_two_splits(name, prepared):
  patients, records = collections.defaultdict(set), read_all(build.locate(name, prepared))
  for record in records.values():
    patients[record['split']].add(record['patient'])
  truth = {(record['patient'], radiograph.patient) for record, radiograph in match_truth(name, records)}
  assert len(truth) == len(set.union(*patients.values())) == len({drawn for _, drawn in truth})
  assert set(patients) == set(SPLITS)
  for one, other in itertools.combinations(patients.values(), 2):
    assert not one & other


def test_metadata_names_values_classes_and_split_rule(prepared):
  bone = build.read_metadata(build.locate('rsna_bone_age', prepared))
  assert bone['value'] == {'name': 'bone age', 'unit': 'months'} and bone['findings'] == []
  dental = build.read_metadata(build.locate('panoramic_dental', prepared))
  assert dental['mask'] == ['background', 'mandible']
  assert dental['split']['seed'] == 0 and '80/10/10' in dental['split']['rule']


def test_a_build_repeated_by_another_process_is_the_same_bit_for_bit(archives, prepared, tmp_path):
  names = ('nih_chest_xray', 'panoramic_dental')
  subprocess.run([sys.executable, '-m', 'tfds_builders.build', *names, '--archives', archives, '--data_dir', tmp_path],
                 check=True, cwd=ROOT)
  for name in names:
    again, first = build.locate(name, tmp_path), build.locate(name, prepared)
    assert read_bytes(again) == read_bytes(first)
    assert (again / 'index.csv').read_bytes() == (first / 'index.csv').read_bytes()
    assert build.read_metadata(again) == build.read_metadata(first)


def test_a_split_too_large_for_memory_is_sorted_on_disk_without_tensorflow(tmp_path, monkeypatch):
  write_nih(tmp_path)
  plain = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'plain')
  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 5000)
  spilled = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'spilled')
  assert read_bytes(spilled) == read_bytes(plain)
  assert not list(spilled.glob('*bucket*'))


@pytest.mark.parametrize('size', ['original', '512', '256'])
def test_sizes_reduce_and_never_enlarge(size, tmp_path):
  root = write_nih(tmp_path)
  large = sorted((root / 'images_001/images').iterdir())[5]
  PIL.Image.fromarray(np.zeros((600, 800), np.uint8)).save(large)
  records = read_all(build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data', size=size))
  shapes = {'original': (600, 800, 1), '512': (384, 512, 1), '256': (192, 256, 1)}
  assert records.pop(large.stem)['image'].shape == shapes[size]
  assert {record['image'].shape for record in records.values()} == {(30, 40, 1)}


def test_masks_are_resized_to_their_stored_image(tmp_path):
  for folder in ('Images', 'Segmentation1'):
    (tmp_path / folder).mkdir()
  for number in (*range(1, 10), 22):
    image = np.full((400, 800), 90, np.uint8)
    drawing = np.full((200, 400, 3), 7, np.uint8)  # half as large, three channels, blanked to 7
    drawing[100:150, 200:300] = 90
    PIL.Image.fromarray(image).save(tmp_path / f'Images/{number}.png')
    PIL.Image.fromarray(drawing).save(tmp_path / f'Segmentation1/{number}.png')
  records = read_all(build.prepare('panoramic_dental', tmp_path, tmp_path / 'data'))
  expected = np.zeros((128, 256, 1), np.uint8)
  expected[64:96, 128:192] = 1
  for number, background in (('5', 0), ('22', label_columns.UNANNOTATED)):  # 22 lost parts of its drawing
    assert records[number]['image'].shape == (128, 256, 1)
    np.testing.assert_array_equal(records[number]['mask'], np.where(expected, 1, background))


# Quirks of the real archives

def test_nih_quirks(tmp_path):
  root = write_nih(tmp_path, box='{name},Infiltrate,256,512,128,64')
  images, table = root / 'images_001/images', root / 'Data_Entry_2017_v2020.csv'
  grey = np.asarray(PIL.Image.open(images / '00000001_000.png'))
  PIL.Image.fromarray(np.stack([grey, 255 - grey, grey, grey], -1)).save(images / '00000001_000.png')
  edit(table, '00000001_000.png,No Finding,0,1,32,', '00000001_000.png,Pleural_Thickening,0,1,412,')
  table.write_text(table.read_text().replace('\n', ',\n'))  # the table of 2017 has an empty last column
  table.rename(root / 'Data_Entry_2017.csv')
  (images / '._00000001_000.png').write_bytes(b'resource fork')
  (root / '__MACOSX/images').mkdir(parents=True)
  (root / '__MACOSX/images/00000001_000.png').write_bytes(b'resource fork')
  path = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data')
  records, kinds = read_all(path), build.read_metadata(path)['box_classes']
  assert len(records) == 40 and not read_rejects(path)
  rgba = records['00000001_000']
  np.testing.assert_array_equal(rgba['image'][..., 0], grey)
  assert math.isnan(rgba['age']) and records['00000001_001']['age'] == 33
  assert rgba['present'].tolist() == [title == 'Pleural_Thickening' for title in build.read_metadata(path)['findings']]
  (kind, box), = list_objects(records['00000000_000'])
  assert kinds[kind] == 'Infiltration'
  np.testing.assert_allclose(box, [0.5, 0.25, 0.5625, 0.375])


def test_kermany_ignores_copies_and_resource_forks_and_works_without_val(tmp_path):
  root = tmp_path / 'downloads/chest_xray'
  rng = np.random.default_rng(0)
  names = [*(f'train/PNEUMONIA/person{i}_{"bacteria" if i % 2 else "virus"}_{i}.jpeg' for i in range(12)),
           *(f'train/NORMAL/IM-{i:04d}-0001.jpeg' for i in range(6)),
           *(f'test/NORMAL/NORMAL2-IM-{i:04d}-0001-000{i % 2 + 1}.jpeg' for i in range(4)),
           'test/PNEUMONIA/of_unknown_germ.jpeg']
  for name, top in itertools.product(names, ('', 'chest_xray/')):
    (root / top / name).parent.mkdir(parents=True, exist_ok=True)
    shape = (20, 30, 3) if 'person3' in name else (20, 30)
    PIL.Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(root / top / name)
  (root / '__MACOSX').mkdir()
  for junk in ('__MACOSX/._x.jpeg', 'train/NORMAL/._IM-0001-0001.jpeg', 'train/NORMAL/.DS_Store'):
    (root / junk).write_bytes(b'junk')
  path = build.prepare('kermany_pneumonia', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert set(records) == {name[:-5] for name in names} and not read_rejects(path)
  assert {record['image'].shape for record in records.values()} == {(20, 30, 1)}
  assert records['test/NORMAL/NORMAL2-IM-0003-0001-0002']['patient'] == 'kermany_pneumonia:NORMAL2-IM-0003'
  silent = records['test/PNEUMONIA/of_unknown_germ']
  assert silent['label_mask'].tolist() == [True, False, False] and silent['present'].tolist() == [1, 0, 0]
  assert records['train/PNEUMONIA/person3_bacteria_3']['present'].tolist() == [1, 1, 0]
  assert records['train/NORMAL/IM-0001-0001']['label_mask'].tolist() == [True, True, True]


def test_kermany_with_the_names_of_mendeley(tmp_path):
  names = [f'{split}/{"NORMAL" if germ == "NORMAL" else "PNEUMONIA"}/{germ}-{1000 + i}-000{int(split == "test")}.jpeg'
           for i, germ in enumerate(('NORMAL', 'BACTERIA', 'VIRUS') * 4) for split in ('train', 'test')]
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / name)
  records = read_all(build.prepare('kermany_pneumonia', tmp_path, tmp_path / 'data'))
  assert len(records) == 24 and len({record['patient'] for record in records.values()}) == 12
  virus = records['train/PNEUMONIA/VIRUS-1002-0000']
  assert virus['patient'] == 'kermany_pneumonia:1002' and virus['present'].tolist() == [1, 0, 1]


def test_bone_age_counts_the_test_images_it_leaves_out(tmp_path):
  root = tmp_path / 'rsna_bone_age'
  for folder in ('boneage-training-dataset', 'boneage-test-dataset'):
    (root / folder / folder).mkdir(parents=True)
  for name in [*(f'training-dataset/boneage-training-dataset/{i}' for i in range(10)),
               *(f'test-dataset/boneage-test-dataset/{i}' for i in range(20, 22))]:
    PIL.Image.fromarray(np.zeros((20, 30), np.uint8)).save(root / f'boneage-{name}.png')
  (root / 'boneage-training-dataset.csv').write_text(
    'id,boneage,male\n' + ''.join(f'{i},{100 + i},{i % 2 == 0}\n' for i in range(10)))
  (root / 'boneage-test-dataset.csv').write_text('Case ID,Sex\n20,M\n21,F\n')
  path = build.prepare('rsna_bone_age', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert {image_id: (record['value'].tolist(), record['sex']) for image_id, record in records.items()} == {
    str(i): ([100 + i], 'FM'[i % 2 == 0]) for i in range(10)}
  assert build.read_metadata(path)['left_out'] == {'test image without bone age': 2}


def test_a_bone_age_table_that_pandas_saved_again_gives_the_same_entries(tmp_path):
  (tmp_path / 'boneage-training-dataset').mkdir()
  files = {f'boneage-training-dataset/{i}.png': 1 for i in range(9)}
  rows = [f'{i},{100 + i},{i % 2 == 0}' for i in range(9)]
  module, found = build.load('rsna_bone_age'), []
  for text in ('id,boneage,male\n' + '\n'.join(rows), '\ufeffid;boneage;male\n' + ';\n'.join(
      row.replace(',', '.0;').replace('True', '1.0').replace('False', '0') for row in rows) + ';\n;;\n'):
    (tmp_path / 'boneage-training-dataset.csv').write_text(text)
    found.append(module.read_archive(tmp_path, files))
  assert found[0] == found[1] and len(found[0][0]) == 9 and not found[0][1]
  edit(tmp_path / 'boneage-training-dataset.csv', ';100.0;', ';100.05;')
  reject, = module.read_archive(tmp_path, files)[1]
  assert reject.reason.startswith("missing bone age or sex: '100.05'"), 'a part of a month is no whole number'


def test_of_two_versions_of_a_table_of_nih_one_is_read_and_the_other_is_told(tmp_path, caplog):
  root, module = write_nih(tmp_path), build.load('nih_chest_xray')
  before = module.read_archive(root, downloads.list_files(module.ARCHIVE, root))
  for name in ('BBox_List_2017', 'Data_Entry_2017_v2020'):
    (root / f'{name} (1).csv').write_bytes((root / f'{name}.csv').read_bytes().replace(b'Pneumonia', b'Mass'))
  edit(root / 'Data_Entry_2017_v2020.csv', ',30,F,', ',30.0,F,')
  assert module.read_archive(root, downloads.list_files(module.ARCHIVE, root)) == before
  assert 'not the other versions beside it: BBox_List_2017 (1).csv' in caplog.text


@pytest.mark.parametrize('spoil', [
  lambda text: text.replace(',', ';'), lambda text: text.replace('train,0', 'train,x')])
def test_an_index_that_was_saved_by_another_program_is_refused(spoil, prepared, tmp_path):
  text = (build.locate('knee_oa', prepared) / 'index.csv').read_text()
  (tmp_path / 'index.csv').write_text(spoil(text))
  with pytest.raises(ValueError, match='index.csv is not as it was written: prepare it again .* --overwrite'):
    index.read(tmp_path)


def test_mura_keeps_a_patient_with_a_normal_and_an_abnormal_study_together(tmp_path):
  root, paths = tmp_path / 'mura/MURA-v1.1', []
  for patient, study in itertools.product(range(10), ('study1_positive', 'study2_negative')):
    folder = root / f'train/XR_HAND/patient{patient:05d}/{study}'
    folder.mkdir(parents=True)
    PIL.Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / 'image1.png')
    (folder / '._image1.png').write_bytes(b'resource fork')
    paths.append((folder / 'image1.png').relative_to(root.parent).as_posix())
  absent = 'train/XR_HAND/patient00001/study1_positive/image9'
  (root / 'train_image_paths.csv').write_text('\n'.join([*paths, f'MURA-v1.1/{absent}.png']))
  path = build.prepare('mura', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert len(records) == 20 and read_rejects(path) == {(absent, 'row without image')}
  for patient in range(10):
    ours = [record for record in records.values() if record['patient'] == f'mura:patient{patient:05d}']
    assert len({record['split'] for record in ours}) == 1
    assert {(record['study'][-8:], record['present'][0], record['part']) for record in ours} == {
      ('positive', 1.0, 'hand'), ('negative', 0.0, 'hand')}


# Bad input

def test_bad_input_is_listed_with_its_reason_and_left_out(tmp_path):
  root = write_nih(tmp_path, images=200, box='{name},Mass,256,512,0,64')
  images = root / 'images_001/images'
  (images / '00000010_000.png').write_bytes((images / '00000010_000.png').read_bytes()[:-300])
  (images / '00000020_000.png').unlink()
  (images / '00009999_000.png').write_bytes((images / '00000011_000.png').read_bytes())
  (root / 'images_002').mkdir()
  (root / 'images_002/00000012_000.png').write_bytes((images / '00000012_000.png').read_bytes())
  edit(root / 'Data_Entry_2017_v2020.csv', '00000030_000.png,No Finding', '00000030_000.png,Ghost')
  path = build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data')
  assert read_rejects(path) == {
    ('00000010_000', 'unreadable image'), ('00000020_000', 'row without image'), ('00009999_000', 'image without row'),
    ('00000012_000', 'duplicate image_id'), ('00000030_000', 'unknown finding'), ('00000000_000', 'box without area')}
  records = read_all(path)
  assert len(records) == 197 and list_objects(records['00000000_000']) == []
  assert build.read_metadata(path)['rejects'] == dict.fromkeys((
    'duplicate image_id', 'box without area', 'row without image', 'unknown finding', 'image without row',
    'unreadable image'), 1)


@pytest.mark.parametrize('spoil', [pathlib.Path.unlink, lambda path: path.write_bytes(b'garbage')])
def test_too_much_bad_input_fails_and_leaves_nothing_that_looks_prepared(tmp_path, spoil):
  root = write_nih(tmp_path)
  for path in sorted((root / 'images_001/images').iterdir())[:3]:
    spoil(path)
  with pytest.raises(records.TooManyRejects, match='3 of 40 items are bad'):
    build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data')
  assert not list((tmp_path / 'data').rglob('*record*'))
  assert len(read_all(build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data', tolerated=0.2))) == 37


def test_an_interrupted_build_leaves_nothing_that_looks_prepared(tmp_path, monkeypatch):
  write_nih(tmp_path)

  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(records, 'write_rejects', interrupt)
  with pytest.raises(KeyboardInterrupt):
    build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data')
  monkeypatch.undo()
  assert not list((tmp_path / 'data').rglob('*record*'))
  assert len(read_all(build.prepare('nih_chest_xray', tmp_path, tmp_path / 'data'))) == 40


# Finding archives, and detecting changes

def test_the_error_for_a_missing_archive_names_folder_layout_and_download(tmp_path):
  with pytest.raises(downloads.ArchiveMissing) as caught:
    build.prepare('mura', tmp_path, tmp_path / 'data')
  assert caught.value.dataset == 'mura'
  for part in (str(tmp_path / 'mura'), 'train/XR_*', 'MURA-v1.1/train_image_paths.csv', 'stanfordmlgroup'):
    assert part in str(caught.value)


def test_all_missing_archives_are_reported_together(tmp_path, capsys):
  write_nih(tmp_path)
  absent = set(build.NAMES) - {'nih_chest_xray'}
  assert {error.dataset for error in build.find_missing(build.NAMES, tmp_path)} == absent
  assert build.main(['all', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]) == 2
  printed = capsys.readouterr().err.strip().split('\n')
  assert {line.split(':')[0] for line in printed} == absent


def test_all_includes_no_dataset_of_ones_own_and_one_named_beside_it_is_built_too(tmp_path, capsys):
  assert build.main(['all', 'clinic', 'mura', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]) == 2
  *printed, last = capsys.readouterr().err.strip().split('\n')
  assert [line.split(':')[0] for line in printed] == list(build.NAMES)
  assert last.startswith("unknown dataset 'clinic'")


def test_an_archive_is_found_below_other_folders_but_not_in_folders_full_of_files(tmp_path, monkeypatch):
  root = write_nih(tmp_path / 'all/xrays')
  spec = build.load('nih_chest_xray').ARCHIVE
  assert downloads.find_root(spec, tmp_path) == root
  monkeypatch.setattr(downloads, 'MAX_FOLDER', 3)
  for i in range(5):
    (tmp_path / f'{i}.png').touch()
  with pytest.raises(downloads.ArchiveMissing):
    downloads.find_root(spec, tmp_path)


def test_the_same_archive_in_another_folder_is_not_built_again_and_a_changed_one_is_refused(tmp_path):
  root = write_nih(tmp_path / 'one')
  write_nih(tmp_path / 'two')
  path = build.prepare('nih_chest_xray', tmp_path / 'one', tmp_path / 'data')
  written = (path / 'dataset_info.json').stat().st_mtime_ns
  assert build.prepare('nih_chest_xray', tmp_path / 'two', tmp_path / 'data') == path
  assert build.prepare('nih_chest_xray', tmp_path / 'gone', tmp_path / 'data') == path
  assert (path / 'dataset_info.json').stat().st_mtime_ns == written
  edit(root / 'Data_Entry_2017_v2020.csv', '00000000_000.png,Pneumonia|Edema', '00000000_000.png,Edema|Pneumonia')
  with pytest.raises(build.ArchiveChanged, match='--overwrite'):
    build.prepare('nih_chest_xray', tmp_path / 'one', tmp_path / 'data')
  build.prepare('nih_chest_xray', tmp_path / 'one', tmp_path / 'data', overwrite=True)
  assert (path / 'dataset_info.json').stat().st_mtime_ns != written


def test_the_command_prints_what_it_prepared(tmp_path, capsys):
  root = write_nih(tmp_path)
  sorted((root / 'images_001/images').iterdir())[0].unlink()
  assert build.main(['nih_chest_xray', '--archives', str(tmp_path), '--data_dir', str(tmp_path / 'data')]) == 0
  printed = capsys.readouterr().out
  assert 'train 27, validation 6, test 6 images' in printed and '1 row without image' in printed


# Real radiographs

@pytest.mark.skipif(not XRAYS.exists(), reason='needs the real subsets beside the checkout')
@pytest.mark.parametrize('name, images, positive', [('nih_chest_xray', 95, 60), ('kermany_pneumonia', 1754, 1020)])
def test_real_subsets_are_prepared_whole(name, images, positive, tmp_path):
  path = build.prepare(name, XRAYS, tmp_path)
  finding = [title.lower() for title in build.read_metadata(path)['findings']].index('pneumonia')
  records = read_all(path)
  assert len(records) == images and not read_rejects(path)
  assert sum(record['present'][finding] for record in records.values()) == positive
  if name == 'nih_chest_xray':
    assert sum(len(list_objects(record)) for record in records.values()) == 31
