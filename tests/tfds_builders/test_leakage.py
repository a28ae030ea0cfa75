"""Leakage: the same radiograph in two places is found, and a task on pretraining images is not external."""

import contextlib
import csv
import itertools
import pathlib

import cv2
import numpy as np
import pytest

from configs import common, tasks
from tests.support.paths import XRAYS
from tests.support.small_runs import PHANTOMS
from tfds_builders import build, leakage, phantoms
from tfds_builders.common import fingerprints


def window(image, low, high):
  return (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)


CHANGES = {
  'as it is': lambda image: image,
  'squashed': lambda image: cv2.resize(image, (100, 80), interpolation=cv2.INTER_AREA),
  'JPEG': lambda image: cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
  'windowed': lambda image: window(image, *np.percentile(image, (2, 98))),
  'gamma': lambda image: (255 * (image / 255) ** 0.8).astype(np.uint8),
}


def render(name='nih_chest_xray', images=30):
  """Images of different phantom patients."""
  seen = {}
  for _, radiograph in phantoms.render(name, images, size=160, seed=5):
    seen.setdefault(radiograph.patient, radiograph.image)
  return list(seen.values())


def write_own(folder, name, images):
  """A prepared custom dataset of {file name: image}, one patient per image."""
  (folder / name / 'images').mkdir(parents=True)
  for file, image in images.items():
    cv2.imwrite(str(folder / name / 'images' / file), image)
  (folder / name / 'labels.csv').write_text('image,patient\n' + ''.join(f'{file},{file}\n' for file in images))
  build.prepare(name, folder, folder / 'data')


def run(capsys, folder, *names, flags=()):
  assert leakage.main([*names, '--data_dir', str(folder / 'data'), *flags]) == 0
  return capsys.readouterr().out


# Fingerprints

def test_near_hashes_are_those_that_brute_force_finds(monkeypatch):
  monkeypatch.setattr(fingerprints, 'BLOCK', 500)  # many blocks
  rng = np.random.default_rng(0)
  one = rng.integers(0, 2**63, 300, np.uint64)
  flips = [sum(1 << int(bit) for bit in rng.permutation(64)[:count]) for count in rng.integers(0, 12, 900)]
  other = np.concatenate([np.tile(one, 3) ^ np.array(flips, np.uint64), np.zeros(200, np.uint64)])  # a crowded bucket
  one = np.concatenate([one, np.zeros(5, np.uint64)])
  expected = np.nonzero(np.bitwise_count(one[:, None] ^ other[None]) <= fingerprints.RADIUS)
  found = fingerprints.find_near_hashes(one, other)
  np.testing.assert_array_equal(found, expected)
  assert len(found[0]) > 1500


def test_a_hundred_thousand_images_are_compared_and_every_planted_pair_is_found():
  rng = np.random.default_rng(1)
  one, other = (rng.integers(0, 2**63, 100_000, np.uint64) for _ in range(2))
  places = rng.permutation(100_000)[:200]
  for place in places:
    other[place] = one[place] ^ np.uint64(sum(1 << int(bit) for bit in rng.permutation(64)[:7]))
  first, second = fingerprints.find_near_hashes(one, other)
  assert set(places.tolist()) <= set(first[first == second].tolist())


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('name', ['nih_chest_xray', 'mura', 'panoramic_dental'])
def test_a_changed_copy_is_the_same_image_and_another_patients_is_not(name, change):
  images = render(name)
  prints, copies = ([fingerprints.fingerprint(image) for image in some]
                    for some in (images, map(CHANGES[change], images)))
  one, other = ((np.array([print_[0] for print_ in some]), np.stack([print_[1] for print_ in some]))
                for some in (prints, copies))
  first, second, correlation = fingerprints.find_matches(one, other)
  assert first.tolist() == second.tolist() == list(range(len(images)))
  assert correlation.min() > 0.96


def test_flat_images_match_nothing():
  flat = (np.full((40, 50), grey, np.uint8) for grey in (0, 9, 255))
  hashes, pixels = zip(*map(fingerprints.fingerprint, flat), strict=True)
  flat = np.array(hashes), np.stack(pixels)
  assert [len(found) for found in fingerprints.find_matches(flat, flat)] == [0, 0, 0]


# Datasets

def test_copies_in_another_dataset_are_found_and_listed(tmp_path, capsys):
  images = render()
  write_own(tmp_path, 'one', {f'{i}.png': image for i, image in enumerate(images[:12])})
  taken = {f'copy{i}.png': CHANGES['squashed'](images[i]) for i in (2, 7, 11)}
  write_own(tmp_path, 'two', taken | {f'new{i}.png': image for i, image in enumerate(images[12:])})
  printed = run(capsys, tmp_path, 'one', 'two', flags=['--pairs', str(tmp_path / 'pairs.csv')])
  row, = [line.split() for line in printed.split('\n') if line.startswith('one ') and ' two ' in line]
  assert row[:6] == ['one', 'two', '3', 'of', '12', '3'] and '= copy' in ' '.join(row)
  assert 'two: 0 pairs of similar images' in printed
  with open(tmp_path / 'pairs.csv', newline='') as file:
    pairs = {(pair['image_id1'], pair['image_id2'], pair['similar']) for pair in csv.DictReader(file)}
  assert pairs == {(f'{i}', f'copy{i}', '1') for i in (2, 7, 11)}


def test_copies_under_another_patients_name_are_found_across_splits(tmp_path, capsys):
  images = render()
  write_own(tmp_path, 'one', {f'{i}{copy}.png': image for i, image in enumerate(images[:12]) for copy in ('', 'again')})
  prints = leakage.load_fingerprints('one', tmp_path / 'data')
  ids = [row['image_id'] for row in prints.rows]
  pairs = {frozenset((ids[pair.i], ids[pair.j])) for pair in leakage.find_pairs(prints, prints)}
  assert pairs == {frozenset((f'{i}', f'{i}again')) for i in range(12)}
  split = {row['image_id']: row['split'] for row in prints.rows}
  across = sum(split[f'{i}'] != split[f'{i}again'] for i in range(12))
  printed = run(capsys, tmp_path, 'one')
  assert across and f'one: 12 pairs of similar images, {across} of them across splits' in printed
  lines = leakage.report([(prints, prints, leakage.find_pairs(prints, prints)[:1])])
  assert any(line.startswith('one: 1 pair of similar images, ') for line in lines)


def test_equal_distinctive_names_are_found_whatever_the_pixels_and_short_names_are_not(tmp_path):
  images = render()
  names = ['CHNCXR_0001_0', 'CHNCXR_0002_0', 'image1', 'front.left']
  write_own(tmp_path, 'one', {f'{name}.png': image for name, image in zip(names, images[:4], strict=True)})
  write_own(tmp_path, 'two', {f'{name}.png': image for name, image in zip(names, images[4:8], strict=True)})
  one, two = (leakage.load_fingerprints(name, tmp_path / 'data') for name in ('one', 'two'))
  pairs = leakage.find_pairs(one, two)
  found = {(one.rows[pair.i]['image_id'], two.rows[pair.j]['image_id'], pair.similar, pair.same_name)
           for pair in pairs}
  assert found == {(name, name, False, True) for name in names[:2]}


def test_fingerprints_are_computed_once_and_again_after_a_new_build(tmp_path, monkeypatch):
  images = render()
  write_own(tmp_path, 'one', {f'{i}.png': image for i, image in enumerate(images[:5])})
  first = leakage.load_fingerprints('one', tmp_path / 'data')
  with monkeypatch.context() as patch:
    patch.setattr(fingerprints, 'fingerprint', lambda image: pytest.fail('computed again'))
    np.testing.assert_array_equal(leakage.load_fingerprints('one', tmp_path / 'data').hashes, first.hashes)
  cv2.imwrite(str(tmp_path / 'one/images/0.png'), images[9])
  build.prepare('one', tmp_path, tmp_path / 'data', overwrite=True)
  again = leakage.load_fingerprints('one', tmp_path / 'data')
  changed = {row['image_id'] for row, old, new in zip(again.rows, first.hashes, again.hashes, strict=True)
             if old != new}
  assert changed == {'0'}


def test_the_fingerprint_of_a_record_is_that_of_the_rendered_image(prepared):
  prints = leakage.load_fingerprints('mura', prepared)
  assert len(prints.hashes) == len(prints.rows) == PHANTOMS['images']
  images = {pathlib.PurePath(path).with_suffix('').as_posix(): radiograph.image
            for path, radiograph in phantoms.render('mura', **PHANTOMS)}
  for row, taken in zip(prints.rows, prints.hashes, strict=True):
    image, = [image for path, image in images.items() if f'/{path}'.endswith(f'/{row["image_id"]}')]
    assert fingerprints.fingerprint(image)[0] == taken


def test_a_dataset_that_is_not_prepared_is_an_error_of_one_line(tmp_path, capsys):
  assert leakage.main(['mura', '--data_dir', str(tmp_path)]) == 2
  error = capsys.readouterr().err.strip()
  assert error.endswith(f'run python -m tfds_builders.build mura --archives DIR --data_dir {tmp_path} --size 256')
  assert '\n' not in error


# Known overlaps between archives

@pytest.mark.parametrize('task, pretrained, reason', [
  ('lung_masks', 'shenzhen_cxr', 'all 662 CHNCXR images'),
  ('montgomery_cxr', 'lung_masks', 'all 138 MCUCXR images'),
  ('covid19_radiography', 'kermany_pneumonia', '1,345 images of Viral Pneumonia'),
  ('covid19_radiography', 'nih_chest_xray', 'rsna_pneumonia took all 29,684 images from nih_chest_xray'),
  ('siim_pneumothorax', 'rsna_pneumonia', 'siim_pneumothorax took all images from nih_chest_xray'),
  ('mura', 'mura', 'it is the same dataset')])
def test_a_task_on_pretraining_images_is_not_external(task, pretrained, reason):
  with pytest.raises(leakage.NotExternal) as caught:
    leakage.check_external(task, ['rsna_bone_age', pretrained])
  assert reason in str(caught.value) and f'pretraining on {pretrained}' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_archives_without_known_overlap_pass():
  leakage.check_external('vinbigdata_cxr', ['nih_chest_xray', 'mura', 'lung_masks', 'tbx11k', 'indiana_cxr'])
  leakage.check_external('shenzhen_cxr', ['montgomery_cxr'])
  for one, other in itertools.permutations(leakage.KNOWN_OVERLAPS, 2):
    assert bool(leakage.explain_overlap(one, other)) == bool(leakage.explain_overlap(other, one))


@pytest.mark.parametrize('name', [*tasks.external2, 'covid'])
def test_the_external_tasks_of_mtpret_are_external_to_its_pretraining(name):
  task = tasks.TASKS[name]
  assert task['external']
  refused = contextlib.nullcontext() if name in tasks.external2 else pytest.raises(leakage.NotExternal)
  with refused:
    leakage.check_external(task['dataset'], common.mtpret11)


def test_a_task_is_not_external_if_its_images_are_found_in_the_pretraining(tmp_path):
  images = render()
  write_own(tmp_path, 'seen', {f'{i}.png': image for i, image in enumerate(images[:8])})
  write_own(tmp_path, 'clean', {f'{i}.png': image for i, image in enumerate(images[8:14])})
  write_own(tmp_path, 'mixed', {f'{i}.png': CHANGES['JPEG'](image) for i, image in enumerate(images[7:14])})
  leakage.check_external('mixed', ['seen'])  # nothing known
  leakage.check_external('clean', ['seen'], tmp_path / 'data')
  with pytest.raises(leakage.NotExternal, match='1 of its 7 images are also in seen, for example 0 = 7'):
    leakage.check_external('mixed', ['seen'], tmp_path / 'data')


# Real radiographs

@pytest.mark.skipif(not XRAYS.exists(), reason='needs the real subsets beside the checkout')
def test_the_known_duplicates_in_kermany_are_found_and_no_others(tmp_path):
  build.prepare('kermany_pneumonia', XRAYS, tmp_path)
  prints = leakage.load_fingerprints('kermany_pneumonia', tmp_path)
  stems = [row['image_id'].rsplit('/', 1)[-1] for row in prints.rows]
  pairs = {tuple(sorted((stems[pair.i], stems[pair.j]))) for pair in leakage.find_pairs(prints, prints)}
  assert pairs == {
    ('NORMAL2-IM-0095-0001', 'NORMAL2-IM-0096-0001'), ('NORMAL2-IM-0173-0001-0001', 'NORMAL2-IM-0173-0001-0002'),
    ('NORMAL2-IM-0246-0001-0001', 'NORMAL2-IM-0246-0001-0002'), ('person128_bacteria_606', 'person128_bacteria_607'),
    ('person134_bacteria_643', 'person134_bacteria_644'), ('person1661_virus_2872', 'person1661_virus_2873'),
    ('person1312_bacteria_3317', 'person1312_bacteria_3318')}


def test_a_damaged_cache_is_made_again_and_one_that_cannot_be_written_is_left_out(tmp_path, caplog):
  cache = tmp_path / leakage.CACHE
  for content in (b'', b'no zip file', b'PK\3\4 cut'):
    cache.write_bytes(content)
    with pytest.raises(leakage.DAMAGE), np.load(cache) as stored:
      stored['state']
  leakage.save(cache, state='s', hashes=np.arange(3))
  assert [path.name for path in tmp_path.iterdir()] == [leakage.CACHE]
  with np.load(cache) as stored:
    assert str(stored['state']) == 's'
  leakage.save(cache / 'file.npz', state='s')  # below a file: nothing can be written
  assert 'are not kept for the next comparison' in caplog.text
