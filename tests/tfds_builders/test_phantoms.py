"""The phantoms: reproducible, true to their labels, and in the layout of the public archives."""

import csv
import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from tfds_builders import phantoms
from tfds_builders.phantoms import studies, writing
from tfds_builders.phantoms.archives import nih_chest_xray
from tfds_builders.phantoms.chest_findings import FINDINGS
from tfds_builders.phantoms.exposure import Exposure
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.scene import Scene, ellipsoid, tube

NAMES = ('nih_chest_xray', 'kermany_pneumonia', 'rsna_bone_age', 'mura', 'panoramic_dental', 'knee_oa', 'tbx11k',
         'covid19_radiography', 'vinbigdata_cxr', 'shenzhen_cxr', 'montgomery_cxr', 'lung_masks', 'indiana_cxr',
         'frac_atlas')
DRAWN = (*FINDINGS, 'ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis', 'Ground glass')
QUIET = Vendor(photons=1e9, mark=0, shutter=0)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  root = tmp_path_factory.mktemp('archives')
  return {name: phantoms.write(name, root, 24, size=64) for name in NAMES}


def chest(*requested, patient=3, turn=0, size=128, vendor=QUIET, seed=0):
  return studies.render_chest(seed, 'test', Exposure('', patient, turn, requested), size, vendor)


def same(a, b):
  return np.array_equal(a.image, b.image) and all(np.array_equal(a.masks[k], b.masks[k]) for k in a.masks)


# physics

def test_chord_through_the_middle_of_a_ball_is_its_diameter():
  scene = Scene(10, 8, 20)
  scene.add('bone', ellipsoid(scene, 1, -1, 2, 2, 2))
  assert scene['bone'].max() == pytest.approx(4, rel=1e-3)
  volume = scene['bone'].sum() / scene.scale ** 2
  assert volume == pytest.approx(4 / 3 * np.pi * 8, rel=5e-3)


def test_a_long_tube_drawn_in_runs_equals_the_union_of_its_segments():
  scene = Scene(12, 9, 10)
  path = np.stack([np.linspace(-5, 5, 11), 2 * np.sin(np.linspace(0, 5, 11))], 1)
  window, depth = tube(scene, path, 0.7)
  x, y = np.meshgrid(scene.x_W, scene.y_H)
  distance = np.full(scene.shape, np.inf)
  for a, b in zip(path[:-1], path[1:], strict=True):
    t = np.clip(((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / ((b - a) ** 2).sum(), 0, 1)
    distance = np.minimum(distance, np.hypot(x - a[0] - t * (b - a)[0], y - a[1] - t * (b - a)[1]))
  np.testing.assert_allclose(np.maximum(scene.to_full((window, depth)), 0), np.maximum(0.7 - distance, 0), atol=1e-5)


def test_bone_is_brighter_than_flesh_and_flesh_than_air():
  hand = studies.render_hand(0, 'test', Exposure('', 1, 0), 128, QUIET).image
  knee = studies.render_knee(0, 'test', Exposure('', 1, 0, ('0',)), 128, QUIET).image
  assert np.percentile(hand, 10) < 40 and hand.max() > 200
  assert knee[30:40, 50:78].mean() > knee[50:80, 2:8].mean() + 40


# reproducible

@pytest.mark.parametrize('name', NAMES)
def test_the_same_seed_renders_the_same_bits_and_another_seed_others(name):
  first, again, other = (next(iter(phantoms.render(name, 1, 64, seed)))[1] for seed in (5, 5, 6))
  assert same(first, again)
  assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.parametrize('name', NAMES)
def test_the_number_of_images_does_not_change_an_image(name):
  few, many = list(phantoms.render(name, 2, 64)), list(phantoms.render(name, 4, 64))
  for (path, one), (path_too, two) in zip(few, many, strict=False):
    assert path == path_too and same(one, two)


def test_processes_do_not_change_an_image(tmp_path):
  one = phantoms.write('mura', tmp_path / 'one', 6, size=64, processes=1)
  two = phantoms.write('mura', tmp_path / 'two', 6, size=64, processes=2)
  files = sorted(path.relative_to(one) for path in one.rglob('*') if path.is_file())
  assert files == sorted(path.relative_to(two) for path in two.rglob('*') if path.is_file())
  for path in files:
    assert (one / path).read_bytes() == (two / path).read_bytes()


def test_every_image_has_its_own_path():
  for name in NAMES:
    paths = [exposure.path for exposure in writing.plan(name, 400, 0)]
    assert len(set(paths)) == 400


# patients

def likeness(a, b):
  """Correlation of two pictures after the best small shift, on a coarse grid."""
  small = [np.asarray(Image.fromarray(x).resize((40, 40), Image.Resampling.BOX), float)[4:-4] for x in (a, b)]
  shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
  moved = [np.roll(small[1], shift, (0, 1))[2:-2, 2:-2].ravel() for shift in shifts]
  return max(np.corrcoef(small[0][2:-2, 2:-2].ravel(), other)[0, 1] for other in moved)


def test_a_patient_keeps_the_anatomy():
  first, later = ([chest(patient=p, turn=t).image for p in range(8)] for t in (0, 1))
  own = [likeness(first[p], later[p]) for p in range(8)]
  strange = [likeness(first[p], later[(p + 3) % 8]) for p in range(8)]
  assert not any(np.array_equal(a, b) for a, b in zip(first, later, strict=True))
  assert np.mean(np.array(own) > np.array(strange)) >= 0.85 and np.mean(own) > np.mean(strange)


def test_no_patient_is_in_both_split_lists(written):
  root = written['nih_chest_xray']
  lists = [(root / name).read_text().split() for name in ('train_val_list.txt', 'test_list.txt')]
  split = [{line.split('_')[0] for line in lines} for lines in lists]
  assert split[0] and split[1] and not split[0] & split[1]


# findings

@pytest.mark.parametrize('finding', DRAWN)
def test_a_finding_changes_pixels_inside_its_box(finding):
  """Against the same patient in the same position without it; Emphysema and Cardiomegaly change the shape as well."""
  ill, well = chest(finding), chest()
  (label, x, y, w, h), = ill.boxes
  assert label == finding and w > 4 and h > 2
  change = np.abs(ill.image.astype(float) - well.image)
  outside = np.ones(change.shape, bool)
  outside[y:y + h, x:x + w] = False
  inside = change[ill.masks[finding]]
  assert np.percentile(inside, 75) > 9
  assert inside.mean() > 1.5 * change[outside].mean()


@pytest.mark.parametrize('finding', DRAWN)
def test_boxes_enclose_what_was_drawn(finding):
  for patient in range(3):
    seen = chest(finding, patient=patient, size=96)
    for label, x, y, w, h in seen.boxes:
      mask = seen.masks[label]
      assert mask[y:y + h, x:x + w].sum() == mask.sum() > 0
      assert mask[y].any() and mask[y + h - 1].any() and mask[:, x].any() and mask[:, x + w - 1].any()


def test_a_large_heart_is_more_than_half_as_wide_as_the_chest():
  def ratio(*requested):
    values = []
    for patient in range(6):
      masks = chest(*requested, patient=patient, size=96).masks
      lungs = np.flatnonzero((masks['lung_left'] | masks['lung_right']).any(0))
      heart = np.flatnonzero(masks['heart'].any(0))
      values.append(np.ptp(heart) / np.ptp(lungs))
    return values
  assert max(ratio()) < 0.53 < min(ratio('Cardiomegaly'))


def test_every_label_has_a_drawing():
  for name in ('nih_chest_xray', 'kermany_pneumonia', 'mura', 'frac_atlas'):
    for _, seen in phantoms.render(name, 40, 64):
      assert bool(seen.findings) == bool(seen.boxes)


def test_the_mean_grey_does_not_reveal_the_label():
  for name in ('nih_chest_xray', 'kermany_pneumonia', 'mura', 'frac_atlas'):
    seen = [radiograph for _, radiograph in phantoms.render(name, 120, 48, seed=2)]
    ill, well = ([r.image.mean() for r in seen if bool(r.findings) == kind] for kind in (True, False))
    area = np.mean([[a > b for b in well] for a in ill])  # the ROC curve's
    assert 0.25 < area < 0.75, (name, area)


def test_about_half_of_the_chests_show_nothing_and_all_findings_occur():
  exposures = writing.plan('nih_chest_xray', 2000, 0)
  assert 0.35 < np.mean([not exposure.requested for exposure in exposures]) < 0.65
  assert {finding for exposure in exposures for finding in exposure.requested} == set(FINDINGS)


def test_growth_plates_close_with_age():
  from tfds_builders.phantoms.hand import growth_stage
  gaps, shares = zip(*[growth_stage({'months': m, 'fuse': 0}) for m in (12, 60, 120, 200)], strict=True)
  assert list(gaps) == sorted(gaps, reverse=True) and gaps[-1] == 0
  assert list(shares) == sorted(shares) and shares[0] == 0


def test_the_joint_space_narrows_with_the_grade():
  from tfds_builders.phantoms.knee import joint_space, sample_knee
  knee = sample_knee(np.random.default_rng(0))
  widths = [min(joint_space(knee, grade)) for grade in range(5)]
  assert widths == sorted(widths, reverse=True) and widths[4] < 0.3 * widths[0]


# layouts

def read(path):
  with open(path, newline='') as source:
    return list(csv.reader(source))


def test_nih_layout(written):
  root = written['nih_chest_xray']
  lines = (root / 'Data_Entry_2017_v2020.csv').read_text().splitlines()
  assert lines[0] == ('Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,'
                      'OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]')
  rows = read(root / 'Data_Entry_2017_v2020.csv')[1:]
  assert len(rows) == 24 and {len(row) for row in rows} == {11}
  assert {row[0] for row in rows} == {path.name for path in (root / 'images_001/images').glob('*.png')}
  assert 'No Finding' in {row[1] for row in rows}
  boxes = read(root / 'BBox_List_2017.csv')
  assert ','.join(boxes[0]) == 'Image Index,Finding Label,Bbox [x,y,w,h],,,'
  assert 'Infiltrate' in {row[1] for row in boxes[1:]} and 'Infiltration' not in {row[1] for row in boxes[1:]}
  assert sum(Image.open(path).mode == 'RGBA' for path in root.rglob('*.png')) == 1


def test_nih_boxes_are_in_pixels_of_1024(written):
  table = read(written['nih_chest_xray'] / 'BBox_List_2017.csv')[1:]
  rows = {(row[0], row[1]): [float(v) for v in row[2:6]] for row in table}
  found = 0
  for path, seen in phantoms.render('nih_chest_xray', 24, 64):
    for finding, *box in seen.boxes:
      key = (path.rsplit('/', 1)[1], 'Infiltrate' if finding == 'Infiltration' else finding)
      if finding in nih_chest_xray.BOXED:
        assert rows[key] == [16 * v for v in box]
        found += 1
  assert found == len(rows) > 3


def test_kermany_layout(written):
  root = written['kermany_pneumonia'] / 'chest_xray'
  assert {path.name for path in root.iterdir()} == {'train', 'val', 'test', 'chest_xray', '__MACOSX', '.DS_Store'}
  images = [p for split in ('train', 'val', 'test') for p in (root / split).rglob('*.jpeg')]
  assert len(images) == 24
  assert sum(Image.open(path).mode == 'RGB' for path in images) == 1
  assert all(p.name.startswith(('IM-', 'NORMAL2-IM-')) == (p.parent.name == 'NORMAL') for p in images)
  assert list((root / '__MACOSX').rglob('._*.jpeg')) and list((root / 'chest_xray').rglob('*.jpeg'))


def test_bone_age_layout(written):
  root = written['rsna_bone_age']
  train, test = read(root / 'boneage-training-dataset.csv'), read(root / 'boneage-test-dataset.csv')
  assert train[0] == ['id', 'boneage', 'male'] and test[0] == ['Case ID', 'Sex']
  assert len(train) + len(test) == 26 and len(test) > 1
  assert {row[2] for row in train[1:]} == {'True', 'False'}
  files = {p.stem for p in (root / 'boneage-training-dataset/boneage-training-dataset').glob('*.png')}
  assert files == {row[0] for row in train[1:]}
  assert len({Image.open(p).size for p in root.rglob('*.png')}) > 5


def test_mura_layout(written):
  root = written['mura']
  paths, studies_ = [], []
  for split in ('train', 'valid'):
    paths += [row[0] for row in read(root / f'MURA-v1.1/{split}_image_paths.csv')]
    studies_ += read(root / f'MURA-v1.1/{split}_labeled_studies.csv')
  assert len(paths) == 24 and all((root / path).is_file() for path in paths)
  assert all(path.endswith('/') and label == str(int('_positive/' in path)) for path, label in studies_)
  assert len(list(root.rglob('._image*.png'))) == 1
  patients = [path.split('/')[3] for path, _ in studies_]
  assert len(patients) > len(set(patients))


def test_panoramic_layout(written):
  root = written['panoramic_dental']
  assert {p.name for p in (root / 'Images').iterdir()} == {f'{i}.png' for i in range(1, 25)}
  for path, seen in phantoms.render('panoramic_dental', 4, 64):
    image = np.asarray(Image.open(root / path).convert('L'))
    drawn = [np.asarray(Image.open(root / path.replace('Images', f'Segmentation{k}')).convert('L')) > 0 for k in (1, 2)]
    assert image.shape == (32, 64) and np.array_equal(image, seen.image)
    assert np.array_equal(drawn[0], seen.masks['mandible'])
    assert 0.8 < (drawn[0] & drawn[1]).sum() / (drawn[0] | drawn[1]).sum() < 1
    assert not drawn[0][0, 0]


def test_frac_atlas_layout(written):
  root = written['frac_atlas'] / 'FracAtlas'
  lines = (root / 'dataset.csv').read_text().splitlines()
  assert lines[0] == ('image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,'
                      'lateral,oblique')
  rows = {row['image_id']: row for row in csv.DictReader(lines)}
  folders = [{path.name for path in (root / 'images' / name).iterdir()} for name in ('Non_fractured', 'Fractured')]
  assert len(rows) == 24 and set(rows) == set.union(*folders)
  contradicted, = [name for name, row in rows.items() if name not in folders[int(row['fractured'])]]
  assert rows[contradicted]['fractured'] == '0' and rows[contradicted]['fracture_count'] == '1'
  coco = json.loads((root / 'Annotations/COCO JSON/COCO_fracture_masks.json').read_text())
  assert coco['categories'] == [{'id': 0, 'name': 'fractured'}]
  assert {image['file_name'] for image in coco['images']} == folders[1]
  turned, = [image for image in coco['images']
             if Image.open(root / 'images/Fractured' / image['file_name']).size != (image['width'], image['height'])]
  assert Image.open(root / 'images/Fractured' / turned['file_name']).getexif() == {274: 8}
  listed = [path.read_text().split()[1:] for path in (root / 'Utilities/Fracture Split').iterdir()]
  assert sorted(sum(listed, [])) == sorted(folders[1]) and len(listed) == 3


def read_picture(path):
  if not path.name.endswith('.dicom'):
    return np.asarray(Image.open(path).convert('RGB'))[..., 0]
  header = pydicom.dcmread(path)
  shown = pydicom.pixels.apply_windowing(header.pixel_array, header) / (2 ** header.BitsStored - 1) * 255
  shown = np.rint(shown).astype(np.uint8)
  return 255 - shown if header.PhotometricInterpretation == 'MONOCHROME1' else shown


@pytest.mark.parametrize('name', NAMES)
def test_what_is_written_is_what_is_rendered(name, written):
  for path, seen in phantoms.render(name, 3, 64):
    there = read_picture(written[name] / path)
    assert there.shape == seen.image.shape
    if path.endswith(('.jpeg', '.jpg')):
      assert np.abs(there.astype(int) - seen.image).mean() < 4
    else:
      assert np.array_equal(there, seen.image)
  assert 'phantom' in (written[name] / 'README.txt').read_text()


# writing

def test_a_complete_archive_is_kept_and_other_arguments_replace_it(tmp_path):
  root = phantoms.write('rsna_bone_age', tmp_path, 2, size=64)
  time = (root / '.phantom.json').stat().st_mtime_ns
  phantoms.write('rsna_bone_age', tmp_path, 2, size=64)
  assert (root / '.phantom.json').stat().st_mtime_ns == time
  phantoms.write('rsna_bone_age', tmp_path, 3, size=64)
  assert len(list(root.rglob('*.png'))) == 3
  assert json.loads((root / '.phantom.json').read_text())['images'] == 3


def test_an_interrupted_write_leaves_no_archive_and_the_next_one_completes(tmp_path, monkeypatch):
  render = writing.render_exposure
  monkeypatch.setattr(
    writing, 'render_exposure',
    lambda name, exposure, *rest: 1 / 0 if exposure.patient else render(name, exposure, *rest))
  with pytest.raises(ZeroDivisionError):
    phantoms.write('rsna_bone_age', tmp_path, 3, size=64)
  assert not (tmp_path / 'rsna_bone_age').exists()
  monkeypatch.setattr(writing, 'render_exposure', render)
  root = phantoms.write('rsna_bone_age', tmp_path, 3, size=64)
  assert len(list(root.rglob('*.png'))) == 3 and [p.name for p in tmp_path.iterdir()] == ['rsna_bone_age']


def test_a_real_archive_is_never_overwritten(tmp_path):
  (tmp_path / 'mura').mkdir()
  (tmp_path / 'mura' / 'precious.png').write_bytes(b'x')
  with pytest.raises(FileExistsError, match='not a phantom archive'):
    phantoms.write('mura', tmp_path, 1, size=64)
  assert (tmp_path / 'mura' / 'precious.png').read_bytes() == b'x'


def test_an_unknown_archive_lists_the_choices():
  with pytest.raises(ValueError, match='choose one of .*kermany_pneumonia, .*mura'):
    list(phantoms.render('chexpert', 1))
