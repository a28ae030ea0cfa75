"""The stream of batches is a function of the step, however it is read."""

import collections
import json

import cv2
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from mtpret_jax.data import pipeline
from mtpret_jax.data.records import decode_image
from mtpret_jax.data.shuffle_bn import unshuffle_keys
from mtpret_jax.data.sources import Source, open_source

flags.FLAGS.mark_as_parsed()  # grain's worker processes read flags, and pytest parses none

SIZE, BATCH = 8, 16


def make_source(name, images, first):
  """A source whose image i is filled with the grey value first + i."""
  records = [{'image': cv2.imencode('.png', np.full((SIZE, SIZE), first + i, np.uint8))[1].tobytes(),
              'image_id': str(first + i).encode()} for i in range(images)]
  return Source(name, 'train', '1.0.0', {}, records)


@pytest.fixture(scope='module')
def sources():
  return [make_source('large', 60, 0), make_source('small', 12, 100)]


def make_config(weights='by_images', seed=0):
  return ConfigDict(dict(
    seed=seed, batch=BATCH, moco=dict(group=4, shuffle_groups=2),
    data=dict(size=SIZE, weights=weights, stored_size='256', threads=2, workers=0, prefetch=2)))


def read_values(batches, count):
  return [batches[i][1]['query'][:, 0, 0, 0].tolist() for i in range(count)]


def test_no_image_comes_again_before_all_others_came(sources):
  batches = pipeline.make_moco_batches(sources, make_config())
  seen = [value for batch in read_values(batches, 72 * 2 // BATCH) for value in batch]
  large = [value for value in seen if value < 100]
  small = [value for value in seen if value >= 100]
  assert sorted(large[:60]) == list(range(60)) and sorted(small[:12]) == list(range(100, 112))
  assert large[:60] != large[60:120], 'the second epoch has another order'


@pytest.mark.parametrize('step', [0, 7])
@pytest.mark.parametrize('processes', [1, 2])
def test_the_images_of_a_step_can_be_named_without_reading_its_batch(step, processes, sources):
  config = make_config('balanced', seed=3)
  parts = [pipeline.make_moco_batches(sources, config, process=process, processes=processes)[step][1]['query']
           for process in range(processes)]
  assert pipeline.name_moco_images(sources, config, step) == [
    ('large' if value < 100 else 'small', str(value)) for part in parts for value in part[:, 0, 0, 0]]


@pytest.mark.parametrize('weights, share', [('by_images', 60 / 72), ('balanced', 1 / 2), ('1,3', 1 / 4)])
def test_weights_set_the_share_of_each_source(sources, weights, share):
  batches = pipeline.make_moco_batches(sources, make_config(weights))
  counts = collections.Counter(int(source) for i in range(30) for source in batches[i][1]['source'])
  assert counts[0] / counts.total() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_together_read_the_batch_that_one_process_reads(sources, processes):
  config = make_config()
  config.moco.update(group=2)
  whole = pipeline.make_moco_batches(sources, config)
  parts = [pipeline.make_moco_batches(sources, config, process=p, processes=processes) for p in range(processes)]
  for step in range(5):
    for field in ('query', 'key', 'source'):
      shared = np.concatenate([part[step][1][field] for part in parts])
      np.testing.assert_array_equal(shared, whole[step][1][field])


def test_keys_are_the_shuffled_queries(sources):
  _, batch = pipeline.make_moco_batches(sources, make_config())[0]
  assert (batch['key'] != batch['query']).any()
  np.testing.assert_array_equal(unshuffle_keys(batch['key'], 4, 2), batch['query'])


@pytest.mark.parametrize('reading', [dict(threads=1), dict(threads=8, prefetch=8), dict(workers=2)])
def test_neither_threads_nor_workers_change_the_order(sources, reading):
  config = make_config()
  batches = pipeline.make_moco_batches(sources, config)
  config.data.update(reading)
  with pipeline.stream(batches, 3, config.data) as feed:
    for step in range(3, 8):
      task, batch = next(feed)
      assert task == 'moco'
      np.testing.assert_array_equal(batch['key'], batches[step][1]['key'])


def test_another_seed_gives_another_order(sources):
  first, second = (read_values(pipeline.make_moco_batches(sources, make_config(seed=seed)), 3) for seed in (0, 1))
  assert first != second


def test_the_fingerprint_changes_with_everything_that_changes_the_order(sources):
  same = pipeline.fingerprint(sources, make_config())
  assert same == pipeline.fingerprint(sources, make_config())
  assert same != pipeline.fingerprint(sources, make_config(seed=1))
  elsewhere = make_config()
  elsewhere.data.update(threads=7, prefetch=9)
  assert same == pipeline.fingerprint(sources, elsewhere)
  assert same != pipeline.fingerprint(sources, make_config(weights='balanced'))
  assert same != pipeline.fingerprint([sources[0], make_source('small', 13, 100)], make_config())
  forwards, backwards = make_config(), make_config()
  forwards.data.datasets, backwards.data.datasets = ('large', 'small'), ('small', 'large')
  assert pipeline.fingerprint(sources, forwards) != pipeline.fingerprint(sources[::-1], backwards)


def test_a_field_whose_name_only_begins_like_an_incidental_one_is_in_the_fingerprint(sources):
  config = make_config()
  config.keep, config.probe = 2, ConfigDict(dict(images=8))
  assert pipeline.fingerprint(sources, config) == pipeline.fingerprint(sources, make_config())
  config.keep_momentum = 0.5
  assert pipeline.fingerprint(sources, config).get('keep_momentum') == 0.5


def test_the_fingerprint_survives_json(sources):
  config = make_config()
  config.head = ConfigDict(dict(dilations=(1, 2), anchor_sizes=((8,), (16, 24))))
  mark = pipeline.fingerprint(sources, config)
  assert json.loads(json.dumps(mark)) == mark


def test_images_are_squashed_to_a_square_and_keep_their_mean():
  rows = np.linspace(0, 250, 40)[:, None] * np.ones((1, 20))
  encoded = cv2.imencode('.png', rows.astype(np.uint8))[1].tobytes()
  image = decode_image(encoded, 10)
  assert image.shape == (10, 10, 1) and image.dtype == np.uint8
  assert abs(image.mean() - rows.mean()) < 1
  assert (np.diff(image[:, 0, 0].astype(int)) > 0).all()


def test_a_damaged_record_says_what_to_do():
  with pytest.raises(ValueError, match='build it again'):
    decode_image(b'not an image', 10)


def test_an_unprepared_dataset_names_the_command(tmp_path):
  with pytest.raises(FileNotFoundError, match='python -m tfds_builders.build mura --archives'):
    open_source('mura', tmp_path, '256', 'train')


def test_prepared_records_stay_encoded_until_they_are_needed(prepared):
  source = open_source('panoramic_dental', prepared, '256', 'train')
  record = source.records[0]
  assert isinstance(record['image'], bytes) and isinstance(record['mask'], bytes)
  assert decode_image(record['image'], 32).shape == (32, 32, 1)



@pytest.mark.parametrize('rule', ['patient', 'paper'])
def test_an_images_only_source_has_the_images_of_the_full_records(prepared, rule):
  whole = open_source('mura', prepared, '256', 'train', rule)
  images = open_source('mura', prepared, '256', 'train', rule, images_only=True)
  assert len(images) == len(whole) > 0
  for index in range(len(whole)):
    assert images.records[index] == {field: whole.records[index][field] for field in ('image', 'image_id')}
