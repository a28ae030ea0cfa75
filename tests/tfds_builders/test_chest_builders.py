"""Chest builders: against the phantoms, with the quirks of the real archives, and on the real lung subset."""

import collections
import math
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

from tests.support import dicoms
from tests.support.archives import match_truth, read_all, read_rejects
from tests.support.paths import XRAYS
from tests.support.small_runs import PHANTOMS
from tfds_builders import build, phantoms
from tfds_builders.common import label_columns, nlm_tuberculosis

NLM = ('shenzhen_cxr', 'montgomery_cxr', 'lung_masks')


def write_png(path, image=None, mode='L'):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = np.zeros((20, 30), np.uint8) if image is None else image
  PIL.Image.fromarray(image).convert(mode).save(path)


# Tuberculosis and lungs

@pytest.mark.parametrize('name', NLM)
def test_labels_sex_and_age_are_those_drawn(name, prepared):
  path = build.locate(name, prepared)
  assert build.read_metadata(path)['findings'] == ['tuberculosis']
  seen = collections.Counter()
  for record, radiograph in match_truth(name, read_all(path)):
    assert record['present'].tolist() == [float('tuberculosis' in radiograph.findings)] and record['label_mask'].all()
    assert (record['sex'], record['age'], record['part']) == (radiograph.sex, radiograph.age, 'chest')
    seen[record['present'][0], record['sex']] += 1
  assert len(seen) == 4


@pytest.mark.parametrize('name, without', [('shenzhen_cxr', (5, 7)), ('montgomery_cxr', None), ('lung_masks', (7, 8))])
def test_lungs_are_those_drawn_and_images_without_a_mask_are_not_annotated(name, without, prepared):
  path = build.locate(name, prepared)
  assert build.read_metadata(path)['mask'] == ['background', 'lung']
  undrawn = 0
  for record, radiograph in match_truth(name, read_all(path)):
    mask = record['mask'][..., 0]
    if without and radiograph.patient % without[1] == without[0]:
      assert (mask == label_columns.UNANNOTATED).all()
      undrawn += 1
    else:
      np.testing.assert_array_equal(mask, radiograph.masks['lung_left'] | radiograph.masks['lung_right'])
      assert radiograph.masks['lung_left'].any() and radiograph.masks['lung_right'].any()
  left_out = build.read_metadata(path)['left_out']
  assert left_out.get('lung mask: not in the archive, image kept', 0) == undrawn
  assert bool(undrawn) == bool(without) and not read_rejects(path)


def test_the_lungs_of_the_phantoms_are_darker_than_their_surroundings():
  for _, radiograph in phantoms.render('montgomery_cxr', **{**PHANTOMS, 'images': 6}):
    lungs = radiograph.masks['lung_left'] | radiograph.masks['lung_right']
    columns = np.flatnonzero(lungs.any(0))
    between = np.zeros_like(lungs)
    between[:, columns[0]:columns[-1]] = True
    assert radiograph.image[lungs].mean() < radiograph.image[between & ~lungs].mean() - 20
    left, right = (np.flatnonzero(radiograph.masks[f'lung_{side}'].any(0)).mean() for side in ('left', 'right'))
    assert left > right  # the patient's left lung is on the right of the picture


@pytest.mark.parametrize('text, sex, age', [
  ('male 45yrs\nnormal', 'M', 45), ('Female, 24yrs.\n2nd rib', 'F', 24), ('female 8months', 'F', 8 / 12),
  ('male ,11mos\n', 'M', 11 / 12), ('Male 30 days', 'M', 30 / 365.25), ('43 male', 'M', 43),
  ('female', 'F', math.nan),
  ("Patient's Sex: F \nPatient's Age: 027Y\nnormal", 'F', 27), ("Patient's Sex: M\nPatient's Age: 006M\n", 'M', 0.5),
  ("Patient's Sex: O\nPatient's Age: \n12 nodules", '', math.nan), ('', '', math.nan), ('male 450yrs', 'M', math.nan)])
def test_clinical_readings_are_parsed_in_all_spellings(text, sex, age):
  read = nlm_tuberculosis.parse_reading(b'\xef\xbb\xbf' + text.encode())
  assert read['sex'] == sex
  assert read['age'] == pytest.approx(age, nan_ok=True)


def test_shenzhen_with_the_nested_folders_of_kaggle(tmp_path):
  """Double folders, a second copy, no masks, a file of another name, one reading that is not there."""
  top = tmp_path / 'shenzhen_cxr/ChinaSet_AllFiles/ChinaSet_AllFiles'
  names = [f'CHNCXR_{i + 1 if i < 15 else i + 312:04d}_{int(i >= 15)}' for i in range(30)]
  for name in names:
    write_png(top / f'CXR_png/{name}.png', mode='RGB')
    write_png(top.parent / f'CXR_png/{name}.png', mode='RGB')
  write_png(top / 'CXR_png/Thumbs.png')
  (top / 'ClinicalReadings').mkdir()
  for name in names[1:]:
    (top / f'ClinicalReadings/{name}.txt').write_text('male 45yrs\nnormal')
  path = build.prepare('shenzhen_cxr', tmp_path, tmp_path / 'data')
  records = read_all(path)
  assert set(records) == set(names) and sum(record['present'][0] for record in records.values()) == 15
  assert read_rejects(path) == {('', 'not an image of this archive')}
  assert build.read_metadata(path)['left_out'] == {
    'second copy of an image': 30, 'lung mask: not in the archive, image kept': 30}
  assert records[names[0]]['sex'] == '' and math.isnan(records[names[0]]['age'])
  assert records[names[1]]['sex'] == 'M' and records[names[1]]['age'] == 45


def test_montgomery_merges_both_lungs_and_rejects_a_single_one(tmp_path):
  left, right = np.zeros((2, 40, 60), np.uint8)
  left[5:30, 35:50], right[5:30, 10:25] = 255, 1
  right = right[::2, ::2]  # a mask of another size
  top = tmp_path / 'MontgomerySet'
  for i in range(40):
    name = f'MCUCXR_{i + 1:04d}_{i % 2}.png'
    write_png(top / f'CXR_png/{name}', np.zeros((40, 60), np.uint8))
    write_png(top / f'ManualMask/leftMask/{name}', left)
    if i:
      write_png(top / f'ManualMask/rightMask/{name}', right)
  write_png(top / 'ManualMask/leftMask/MCUCXR_0099_1.png', left)
  write_png(top / 'ManualMask/rightMask/MCUCXR_0099_1.png', right)
  path = build.prepare('montgomery_cxr', tmp_path, tmp_path / 'data', tolerated=0.1)
  records = read_all(path)
  assert read_rejects(path) == {('MCUCXR_0001_0', 'mask of one lung without the other'),
                                ('MCUCXR_0099_1', 'mask without image')}
  expected = np.zeros((40, 60), bool)
  expected[5:30, 35:50] = True
  expected[6:30, 10:26] = True  # every second row and column of the other lung, doubled
  mask = records['MCUCXR_0002_1']['mask'][..., 0]
  np.testing.assert_array_equal(mask, expected)
  assert (records['MCUCXR_0001_0']['mask'] == label_columns.UNANNOTATED).all()


def test_lung_masks_skips_copies_and_the_paper_rule_uses_only_images_with_a_mask(archives, prepared):
  path = build.locate('lung_masks', prepared)
  copies = len(list((archives / 'lung_masks/Lung Segmentation/test').iterdir()))
  assert build.read_metadata(path)['left_out'] == {
    'copy of an image in test': copies, 'lung mask: not in the archive, image kept': copies}
  root = archives / 'lung_masks'
  listed = {file.relative_to(root).as_posix(): 1 for file in root.glob('Lung Segmentation/*/*.*')}
  entries, _, _ = build.load('lung_masks').read_archive(root, listed)
  assert sum(entry.paper_group is None for entry in entries) == copies > 0
  assert sum(entry.paper_group == '' for entry in entries) == PHANTOMS['images'] - copies


def test_the_nlm_archives_are_not_confused_with_each_other(archives):
  roots = {name: build.archives.find_root(build.load(name).ARCHIVE, archives) for name in NLM}
  for name, root in roots.items():
    assert root.relative_to(archives).parts[0] == name
  with pytest.raises(build.archives.ArchiveMissing):
    build.archives.find_root(build.load('shenzhen_cxr').ARCHIVE, archives / 'lung_masks')
  with pytest.raises(build.archives.ArchiveMissing):
    build.archives.find_root(build.load('montgomery_cxr').ARCHIVE, archives / 'lung_masks')


@pytest.mark.skipif(not XRAYS.exists(), reason='needs the real subsets beside the checkout')
def test_the_real_lungs_are_prepared_whole(tmp_path):
  path = build.prepare('lung_masks', XRAYS, tmp_path)
  records = read_all(path)
  assert len(records) == 127 and not read_rejects(path) and not build.read_metadata(path)['left_out']
  assert sum(image_id.startswith('MCU') for image_id in records) == 13
  assert all(record['present'][0] == float(image_id.endswith('_1')) for image_id, record in records.items())
  drawn = {path.stem.removesuffix('_mask'): path for path in XRAYS.glob('*/Lung Segmentation/masks/*.png')}
  for image_id, record in records.items():
    lung = record['mask'][..., 0]
    assert record['mask'].shape == record['image'].shape and set(np.unique(lung)) == {0, 1}
    reference = PIL.Image.open(drawn[image_id]).resize(lung.shape[::-1], PIL.Image.Resampling.NEAREST)
    assert np.mean((np.asarray(reference) > 0) == lung) > 0.999


# Indiana

def test_indiana_findings_are_those_drawn_and_unknown_where_nothing_was_indexed(prepared):
  path = build.locate('indiana_cxr', prepared)
  names, seen = build.read_metadata(path)['findings'], set()
  assert names[0] == 'Abnormal'
  for record, radiograph in match_truth('indiana_cxr', read_all(path)):
    stated = {finding for finding, present in zip(names, record['present'], strict=True) if present}
    if radiograph.patient % 12 == 10:
      assert not record['label_mask'].any() and not stated
      seen.add('unknown')
    else:
      assert record['label_mask'].all()
      assert stated == radiograph.findings | ({'Abnormal'} if radiograph.findings else set())
      seen |= stated or {'normal'}
    number = radiograph.patient + radiograph.patient // 10 * 2 + 1
    assert record['patient'] == record['study'] == f'indiana_cxr:CXR{number}'
  assert {'unknown', 'normal', 'Abnormal'} < seen
  assert build.read_metadata(path)['left_out'] == {'report without image': 1}


def test_indiana_gives_the_same_records_from_dicom(archives, prepared, tmp_path):
  for folder in ('ecgen-radiology', 'NLMCXR_dcm'):
    shutil.copytree(archives / 'indiana_cxr' / folder, tmp_path / 'archives/indiana_cxr' / folder)
  ours = read_all(build.prepare('indiana_cxr', tmp_path / 'archives', tmp_path / 'data'))
  other = read_all(build.locate('indiana_cxr', prepared))
  assert ours.keys() == other.keys()
  for name, record in ours.items():
    np.testing.assert_array_equal(record['image'], other[name]['image'])
    np.testing.assert_array_equal(record['present'], other[name]['present'])


REPORT = ('<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="CXR{number}"/><MeSH>{headings}</MeSH>'
          '{pictures}</eCitation>')


def write_report(root, number, headings, pictures=()):
  (root / 'ecgen-radiology').mkdir(parents=True, exist_ok=True)
  (root / f'ecgen-radiology/{number}.xml').write_text(REPORT.format(
    number=number, headings=''.join(f'<major>{word}</major>' for word in headings),
    pictures=''.join(f'<parentImage id="{name}"/>' for name in pictures)))


def test_indiana_quirks(tmp_path):
  """PNGs flat beside the reports; the three forms of names; a DICOM file where the PNG is not; what is not there."""
  root = tmp_path / 'indiana_cxr'
  for number in range(10, 70):
    name = f'CXR{number}_IM-{number:04d}-{"1001" if number % 2 else "0001-0002"}'
    write_report(root, number, ['normal'], [name])
    write_png(root / f'{name}.png')
  write_report(root, 1, ['Opacity/lung/base/left', 'Thickening/lung/interstitial'], ['CXR1_1_IM-0001-3001'])
  write_png(root / 'CXR1_1_IM-0001-3001.png')
  write_report(root, 907, ['Thickening/pleura/right', 'Technical Quality of Image Unsatisfactory'],
               ['CXR907_IM-2412-82526002'])
  (root / 'NLMCXR_dcm/907').mkdir(parents=True)
  dicoms.save(dicoms.make(dicoms.ramp(), kind='MONOCHROME1'), root / 'NLMCXR_dcm/907/907_IM-2412-82526002.dcm')
  write_report(root, 3, ['No Indexing'], ['CXR3_IM-0003-1001', 'CXR3_IM-0003-2001'])
  write_png(root / 'CXR3_IM-0003-1001.png')
  write_png(root / 'CXR4_IM-0004-1001.png')
  (root / 'ecgen-radiology/5.xml').write_text('<eCitation><uId')
  (root / 'ecgen-radiology/6.xml').write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation/>')
  path = build.prepare('indiana_cxr', tmp_path, tmp_path / 'data', tolerated=0.1)
  records, names = read_all(path), build.read_metadata(path)['findings']
  assert len(records) == 63
  assert read_rejects(path) == {('CXR3_IM-0003-2001', 'report without its image'), ('', 'image without report'),
                                ('', 'unreadable XML'), ('', 'XML with a document type')}

  def stated(name):
    return {finding for finding, present in zip(names, records[name]['present'], strict=True) if present}

  assert stated('CXR1_1_IM-0001-3001') == {'Abnormal', 'Opacity'}  # what is thick there is not the pleura
  assert stated('CXR907_IM-2412-82526002') == {'Abnormal', 'Pleural_Thickening'}
  assert records['CXR907_IM-2412-82526002']['image'][0, 0] == 255
  assert not records['CXR3_IM-0003-1001']['label_mask'].any()
  assert records['CXR11_IM-0011-1001']['label_mask'].all() and not stated('CXR12_IM-0012-0001-0002')


# Kermany, Mendeley's names

def test_kermany_gives_the_same_records_in_the_layout_of_mendeley(archives, prepared, tmp_path):
  """The phantom archive renamed as Mendeley packs it: no val, names that begin with the germ."""
  kaggle, germs = read_all(build.locate('kermany_pneumonia', prepared)), {}
  for path, radiograph in phantoms.render('kermany_pneumonia', **PHANTOMS):
    germ, = radiograph.findings - {'pneumonia'} or {'normal'}
    folder, turn = pathlib.PurePath(path).parent, sum(f'-{radiograph.patient}-' in name for name in germs.values())
    split = 'test' if folder.parts[1] == 'test' else 'train'
    name = f'{split}/{folder.name}/{germ.upper()}-{radiograph.patient}-{turn + 1:04d}'
    germs[path.removeprefix('chest_xray/').removesuffix('.jpeg')] = name
    target = tmp_path / f'archives/chest_xray/{name}.jpeg'
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(archives / 'kermany_pneumonia' / path, target)
  mendeley = read_all(build.prepare('kermany_pneumonia', tmp_path / 'archives', tmp_path / 'data'))
  assert mendeley.keys() == set(germs.values())
  for old, new in germs.items():
    np.testing.assert_array_equal(kaggle[old]['image'], mendeley[new]['image'])
    for field in ('present', 'label_mask'):
      assert kaggle[old][field].tolist() == mendeley[new][field].tolist()
  patients = [{record['patient'] for record in records.values()} for records in (kaggle, mendeley)]
  assert len(patients[0]) == len(patients[1])
