"""The three split rules: MUSCLE's published counts, the archives' own splits, and views of the stored records."""

import collections
import csv
import pathlib
import time
from concurrent import futures

import pytest
from ml_collections import ConfigDict

from configs.pretrain import get_config
from mtpret_jax import stages
from mtpret_jax.data import pipeline
from mtpret_jax.data.fingerprint import make_fingerprint
from mtpret_jax.data.sources import MissingSplit, open_source
from mtpret_jax.runtime import prepare_data
from tests.support import published, small_runs
from tests.support.archives import SPLITS, flip_bit
from tfds_builders import build, phantoms
from tfds_builders.common import archives as downloads
from tfds_builders.common import index, records, splits


def count(sides):
  sides = collections.Counter(sides.values())
  return tuple(sides[split] for split in SPLITS)


# The counts that MUSCLE prints. Its table gives 3,997 test images for MURA, but its totals need 3,995.
@pytest.mark.parametrize('name, paths, counts', [
  ('kermany_pneumonia', published.list_kermany(), (4686, 585, 585)),
  ('mura', published.list_mura(), (32013, 3997, 3995))])
def test_the_paper_rule_gives_the_published_counts_from_the_lists_of_files(name, paths, counts):
  entries, rejects, _ = build.load(name).read_archive(pathlib.Path('archive'), dict.fromkeys(paths, 1))
  assert not rejects and len(entries) == sum(counts)
  assert count(splits.split_by_paper((entry.image_id, entry.paper_group) for entry in entries)) == counts


@pytest.mark.parametrize('images, counts', [(896, (718, 89, 89)), (800, (640, 80, 80)), (704, (564, 70, 70))])
def test_the_paper_rule_gives_the_published_counts_of_one_group(images, counts):
  """896 is the number of image files of the lung set that MUSCLE counts; the rule can use the 704 with a mask. 800
  TBX11K images show tuberculosis."""
  assert count(splits.split_by_paper((f'{i}', '') for i in range(images))) == counts


def test_the_paper_rule_splits_the_704_images_with_a_lung_mask():
  """On a file list: 138 images from Montgomery and 662 from Shenzhen, of which 566 have a mask."""
  listed = {f'Lung Segmentation/CXR_png/MCUCXR_{i:04d}_0.png': 1 for i in range(138)}
  listed |= {f'Lung Segmentation/masks/MCUCXR_{i:04d}_0.png': 1 for i in range(138)}
  listed |= {f'Lung Segmentation/CXR_png/CHNCXR_{i:04d}_1.png': 1 for i in range(662)}
  listed |= {f'Lung Segmentation/masks/CHNCXR_{i:04d}_1_mask.png': 1 for i in range(566)}
  entries, *_ = build.load('lung_masks').read_archive(pathlib.Path('archive'), listed)
  assert len(entries) == 800 and count(records.assign_splits(entries)['paper']) == (564, 70, 70)


def test_the_paper_rule_takes_the_images_of_tbx11k_with_tuberculosis_only(archives):
  module = build.load('tbx11k')
  root = downloads.find_root(module.ARCHIVE, archives)
  entries, *_ = module.read_archive(root, downloads.list_files(module.ARCHIVE, root))
  sides = splits.split_by_paper((entry.image_id, entry.paper_group) for entry in entries)
  assert {entry.image_id for entry in entries if entry.path.parent.name == 'tb'} == set(sides) != set()
  for name, split in (('train', 'train'), ('val', 'test')):
    listed = {line.split('/')[1][:-4] for line in (root / f'lists/TBX11K_{name}.txt').read_text().split()}
    assert listed & {entry.image_id for entry in entries if entry.official_split} == {
      entry.image_id for entry in entries if entry.official_split == split}


def test_the_paper_rule_does_not_depend_on_the_order_of_files_and_leaves_out_what_the_paper_did():
  pairs = [(f'image{i}', 'ab'[i % 2]) for i in range(60)]
  sides = splits.split_by_paper([*pairs, ('healthy', None)])
  assert sides == splits.split_by_paper(pairs[::-1]) and 'healthy' not in sides
  assert sides != splits.split_by_paper(pairs, seed=1)


# The public test sets are Kermany's 624 images and MURA's 3,197 of the folder valid. Validation is cut from the rest.
@pytest.mark.parametrize('name, paths, folder, training, test', [
  ('kermany_pneumonia', published.list_kermany(), 'test/', 5232, 624),
  ('mura', published.list_mura(), 'valid/', 36808, 3197)])
def test_the_official_test_set_is_the_published_one(name, paths, folder, training, test):
  entries, *_ = build.load(name).read_archive(pathlib.Path('archive'), dict.fromkeys(paths, 1))
  side = records.assign_splits(entries)['official']
  assert {image for image in side if side[image] == 'test'} == {image for image in side if image.startswith(folder)}
  sizes = count(side)
  assert sizes[0] + sizes[1] == training and sizes[2] == test
  assert sizes[1] / training == pytest.approx(0.1, abs=0.01)
  patients = {split: {entry.patient for entry in entries if side[entry.image_id] == split} for split in SPLITS}
  assert not patients['train'] & patients['validation']


def test_the_official_split_of_nih_is_that_of_its_lists(archives, prepared):
  rows = index.read(build.locate('nih_chest_xray', prepared))
  for name, split in (('train_val_list.txt', ('train', 'validation')), ('test_list.txt', ('test',))):
    listed = set((archives / 'nih_chest_xray' / name).read_text().split())
    assert listed and {f'{row["image_id"]}.png' for row in rows if row['official'] in split} == listed
  assert {row['official'] for row in rows} == set(SPLITS)


@pytest.mark.parametrize('name', build.NAMES)
def test_each_split_of_a_rule_is_a_view_of_exactly_its_images(name, prepared):
  with open(build.locate(name, prepared) / 'index.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  for rule in ('paper', 'official'):
    for split in {row[rule] for row in rows} - {''}:
      source = open_source(name, prepared, '256', split, rule)
      seen = [source.records[i]['image_id'].decode() for i in range(len(source))]
      assert len(seen) == len(set(seen))
      assert set(seen) == {row['image_id'] for row in rows if row[rule] == split}


def test_a_view_is_shuffled_and_batched_like_a_stored_split_and_has_another_fingerprint(prepared):
  config = ConfigDict(dict(
    seed=0, batch=8, moco=dict(group=4, shuffle_groups=2),
    data=dict(size=8, weights='by_images', patient_positives=(), stored_size='256', threads=2, workers=0, prefetch=2)))
  one, other = ([open_source('kermany_pneumonia', prepared, '256', 'train', rule)] for rule in ('patient', 'paper'))
  assert pipeline.make_moco_batches(other, config)[3][1]['query'].shape == (8, 8, 8, 1)
  assert make_fingerprint(one, config) != make_fingerprint(other, config)


def test_an_empty_split_is_an_error(prepared):
  with pytest.raises(MissingSplit, match='panoramic_dental has no test images under the split rule .official. at all'):
    open_source('panoramic_dental', prepared, '256', 'test', 'official')


@pytest.mark.parametrize('rule, complaint', [
  ('image', "unknown data.split 'image': choose one of patient, paper, official"),
  ('official', 'panoramic_dental has no train images')])
def test_the_rule_of_a_run_is_checked_before_it_trains(rule, complaint, prepared, archives, tmp_path, one_block,
                                                       monkeypatch):
  config = small_runs.make_pretrain()
  config.data.update(split=rule, dir=str(prepared), archives=str(archives), datasets=('panoramic_dental',))
  config.workdir = str(tmp_path)
  monkeypatch.setattr(stages, 'train_stage', None)
  with pytest.raises(prepare_data.USER_ERRORS, match=complaint):
    stages.run(config)


def test_the_smoke_phantoms_of_mura_have_both_classes_in_each_split(tmp_path):
  """Otherwise `configs/finetune.py:smoke,abnormality` is refused."""
  phantoms.write('mura', tmp_path, **{**get_config('smoke').data.phantoms, 'size': 48})
  builder = build.read_tables('mura', tmp_path)
  split_of = builder.split_rules['patient']
  assert len({(split_of[entry.image_id], *entry.fields['present']) for entry in builder.entries}) == 6


# Prefetch

def test_images_are_made_in_order_and_prefetch_is_bounded(monkeypatch):
  monkeypatch.setattr(records, 'PREFETCH', 6)
  begun, taken = [], []

  def make(entry):
    begun.append(entry)
    time.sleep(0.01 * (entry % 5 == 0))  # now and then a slow one
    return -entry

  with futures.ThreadPoolExecutor(3) as pool:
    for entry, record in records.map_with_prefetch(pool, make, range(40)):
      taken.append((entry, record))
      assert len(begun) - len(taken) < 6
  assert taken == [(entry, -entry) for entry in range(40)] and len(begun) == 40


# The index, and damage

def test_the_index_lists_every_record_at_its_position(prepared):
  path = build.locate('mura', prepared)
  rows = index.read(path)
  for split in SPLITS:
    source = open_source('mura', prepared, '256', split)
    there = [row for row in rows if row['split'] == split]
    assert [row['position'] for row in there] == list(range(len(source)))
    assert [row['image_id'] for row in there] == [source.records[i]['image_id'].decode() for i in range(len(source))]


def test_a_flipped_bit_of_a_stored_image_is_found(archives, tmp_path):
  path = build.prepare('panoramic_dental', archives, tmp_path)
  assert index.find_damage(path) == []
  flip_bit(path, 'validation')
  found, = index.find_damage(path)
  assert found.split(': ')[0] in {f'validation {row["position"]} {row["image_id"]}' for row in index.read(path)
                                  if row['split'] == 'validation'}


def test_records_of_another_build_are_found(archives, prepared, tmp_path):
  """As after a copy that mixed two folders: each file is sound for itself."""
  path = build.prepare('panoramic_dental', archives, tmp_path)
  rows = index.read(path)
  (path / index.NAME).write_text((path / index.NAME).read_text().replace(rows[5]['sha256'], rows[4]['sha256']))
  assert index.find_damage(path) == [f'{rows[5]["split"]} 5 {rows[5]["image_id"]}: differs from what was written']


def test_a_build_interrupted_before_its_index_is_repeated(archives, tmp_path, monkeypatch):
  def stop(*_):
    raise KeyboardInterrupt
  monkeypatch.setattr(index, 'digest', stop)
  with pytest.raises(KeyboardInterrupt):
    build.prepare('panoramic_dental', archives, tmp_path)
  monkeypatch.undo()
  path = build.locate('panoramic_dental', tmp_path)
  assert not build.is_prepared(path)
  assert index.find_damage(build.prepare('panoramic_dental', archives, tmp_path)) == []


def test_an_interrupted_command_continues_with_the_next_dataset(archives, tmp_path, monkeypatch, capsys):
  command = ['panoramic_dental', 'mura', '--archives', str(archives), '--data_dir', str(tmp_path)]
  prepare = build.prepare

  def stop(name, *rest):
    if name == 'mura':
      raise KeyboardInterrupt
    return prepare(name, *rest)

  monkeypatch.setattr(build, 'prepare', stop)
  assert build.main(command) == 130
  monkeypatch.undo()
  done = (build.locate('panoramic_dental', tmp_path) / index.NAME).stat().st_mtime_ns
  assert build.main(command) == 0
  assert (build.locate('panoramic_dental', tmp_path) / index.NAME).stat().st_mtime_ns == done
  assert 'already prepared' in capsys.readouterr().out and build.is_prepared(build.locate('mura', tmp_path))
