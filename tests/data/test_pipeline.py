"""The stream of batches is a function of the step, however it is read."""

import collections
import dataclasses
import json

import cv2
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from mtpret_jax.data import pipeline
from mtpret_jax.data.fingerprint import make_fingerprint
from mtpret_jax.data.records import decode_image
from mtpret_jax.data.shuffle_bn import unshuffle_keys
from mtpret_jax.data.sources import Source, open_source

flags.FLAGS.mark_as_parsed()  # grain's worker processes read flags, and pytest parses none

SIZE, BATCH = 8, 16


def make_source(name, images, first, per_patient=3):
  """A source whose image i is filled with the grey value first + i; `per_patient` neighbours are of one patient."""
  records = [{'image': cv2.imencode('.png', np.full((SIZE, SIZE), first + i, np.uint8))[1].tobytes(),
              'image_id': str(first + i).encode()} for i in range(images)]
  return Source(name, 'train', '1.0.0', {}, records,
                read_patients=lambda: [f'p{i // per_patient}' for i in range(images)])


NAMES = ('large', 'small')


@pytest.fixture(scope='module')
def sources():
  return [make_source('large', 60, 0), make_source('small', 12, 100)]


def make_config(weights='by_images', seed=0, positives=()):
  return ConfigDict(dict(
    seed=seed, batch=BATCH, moco=dict(group=4, shuffle_groups=2),
    data=dict(size=SIZE, weights=weights, patient_positives=positives, stored_size='256', threads=2, workers=0,
              prefetch=2)))


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


def read_pairs(batch):
  """(grey value of the query, of its key), for each row."""
  return np.stack([batch['query'][:, 0, 0, 0], unshuffle_keys(batch['key'], 4, 2)[:, 0, 0, 0]], axis=1)


def test_a_key_of_the_same_patient_is_any_image_of_this_patient(sources):
  batches = pipeline.make_moco_batches(sources, make_config(positives=NAMES))
  plain = pipeline.make_moco_batches(sources, make_config())
  counts, numbers = collections.Counter(), {}
  for step in range(40):
    batch = batches[step][1]
    np.testing.assert_array_equal(batch['query'], plain[step][1]['query'], 'the queries are the same')
    for (query, key), patient in zip(read_pairs(batch).tolist(), batch['patient'].tolist(), strict=True):
      first = 100 if query >= 100 else 0
      assert (query >= 100) == (key >= 100) and (query - first) // 3 == (key - first) // 3
      counts[(key - first) % 3 - (query - first) % 3] += 1
      assert numbers.setdefault((first, (query - first) // 3), patient) == patient
  assert sorted(numbers.values()) == list(range(72 // 3)), 'a number for each patient, over all datasets'
  assert counts[0] / counts.total() == pytest.approx(1 / 3, abs=0.07), 'the image itself is one of three'


def test_only_the_named_datasets_have_keys_of_other_images(sources):
  batches = pipeline.make_moco_batches(sources, make_config('balanced', positives=('small',)))
  other = collections.Counter()
  for step in range(20):
    batch = batches[step][1]
    for (query, key), patient in zip(read_pairs(batch).tolist(), batch['patient'].tolist(), strict=True):
      other[query >= 100, key != query] += 1
      assert query >= 100 or patient == query, 'an image counts as a patient'
      assert query < 100 or patient == 60 + (query - 100) // 3
  assert not other[False, True] and other[True, True] and other[True, False]


def test_an_index_that_does_not_fit_the_records_is_refused(sources):
  broken = dataclasses.replace(sources[1], read_patients=lambda: ['p0'] * 11)
  with pytest.raises(ValueError, match='index.csv of small has 11 images, and its split has 12: .*'
                     'tfds_builders.build small --archives DIR --data_dir DATA_DIR --size SIZE --overwrite'):
    pipeline.make_moco_batches([broken], make_config(positives=('small',)))


def test_a_patient_with_one_image_has_this_one_as_the_key():
  batches = pipeline.make_moco_batches([make_source('single', 20, 0, per_patient=1)],
                                         make_config(positives=('single',)))
  for step in range(3):
    query, key = read_pairs(batches[step][1]).T
    np.testing.assert_array_equal(key, query)


@pytest.mark.parametrize('reading', [dict(threads=1), dict(threads=4, workers=2)])
def test_keys_of_the_same_patient_are_a_function_of_the_step(sources, reading):
  config = make_config(positives=NAMES)
  config.moco.update(group=2)
  whole = pipeline.make_moco_batches(sources, config)
  for step in range(2, 5):
    parts = [pipeline.make_moco_batches(sources, config, process=p, processes=2)[step][1] for p in range(2)]
    for field, rows in whole[step][1].items():
      np.testing.assert_array_equal(np.concatenate([part[field] for part in parts]), rows)
  config.data.update(reading)
  with pipeline.stream(whole, 3, config.data) as feed:
    for step in range(3, 6):
      _, batch = next(feed)
      for field, rows in whole[step][1].items():
        np.testing.assert_array_equal(batch[field], rows)
  other = pipeline.make_moco_batches(sources, make_config(seed=1, positives=NAMES))
  assert (read_pairs(other[0][1]) != read_pairs(whole[0][1])).any()


def test_images_of_keys_are_named_after_those_of_the_queries(sources):
  config = make_config(positives=NAMES)
  pairs = read_pairs(pipeline.make_moco_batches(sources, config)[5][1])
  assert [int(image) for _, image in pipeline.name_moco_images(sources, config, 5)] == pairs.T.flatten().tolist()


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
  same = make_fingerprint(sources, make_config())
  assert same == make_fingerprint(sources, make_config())
  assert same != make_fingerprint(sources, make_config(seed=1))
  elsewhere = make_config()
  elsewhere.data.update(threads=7, prefetch=9)
  assert same == make_fingerprint(sources, elsewhere)
  assert same != make_fingerprint(sources, make_config(weights='balanced'))
  assert same != make_fingerprint([sources[0], make_source('small', 13, 100)], make_config())
  forwards, backwards = make_config(), make_config()
  forwards.data.datasets, backwards.data.datasets = ('large', 'small'), ('small', 'large')
  assert make_fingerprint(sources, forwards) != make_fingerprint(sources[::-1], backwards)


def test_a_field_whose_name_only_begins_like_an_incidental_one_is_in_the_fingerprint(sources):
  config = make_config()
  config.keep, config.probe = 2, ConfigDict(dict(images=8))
  assert make_fingerprint(sources, config) == make_fingerprint(sources, make_config())
  config.keep_momentum = 0.5
  assert make_fingerprint(sources, config).get('keep_momentum') == 0.5


def test_the_fingerprint_survives_json(sources):
  config = make_config()
  config.head = ConfigDict(dict(dilations=(1, 2), anchor_sizes=((8,), (16, 24))))
  mark = make_fingerprint(sources, config)
  assert json.loads(json.dumps(mark)) == mark


def test_images_are_squashed_to_a_square_and_keep_their_mean():
  rows = np.linspace(0, 250, 40)[:, None] * np.ones((1, 20))
  encoded = cv2.imencode('.png', rows.astype(np.uint8))[1].tobytes()
  image = decode_image(encoded, 10)
  assert image.shape == (10, 10, 1) and image.dtype == np.uint8
  assert abs(image.mean() - rows.mean()) < 1
  assert (np.diff(image[:, 0, 0].astype(int)) > 0).all()


def test_a_damaged_record_says_what_to_do():
  with pytest.raises(ValueError, match='prepare it again with python -m tfds_builders.build NAME --archives'):
    decode_image(b'not an image', 10)


def test_an_unprepared_dataset_names_the_command(tmp_path):
  with pytest.raises(FileNotFoundError, match='python -m tfds_builders.build mura --archives'):
    open_source('mura', tmp_path, '256', 'train')


def test_prepared_records_stay_encoded_until_they_are_needed(prepared):
  source = open_source('panoramic_dental', prepared, '256', 'train')
  record = source.records[0]
  assert isinstance(record['image'], bytes) and isinstance(record['mask'], bytes)
  assert decode_image(record['image'], 32).shape == (32, 32, 1)



@pytest.mark.parametrize('rule, whole', [('patient', False), ('paper', False), ('patient', True)])
def test_patients_are_those_of_the_records(prepared, rule, whole):
  source = open_source('mura', prepared, '256', 'train', rule, whole=whole)
  patients = source.read_patients()
  assert patients == [source.records[index]['patient'].decode() for index in range(len(source))]
  assert len(set(patients)) < len(patients)


@pytest.mark.parametrize('rule', ['patient', 'paper'])
def test_an_images_only_source_has_the_images_of_the_full_records(prepared, rule):
  whole = open_source('mura', prepared, '256', 'train', rule)
  images = open_source('mura', prepared, '256', 'train', rule, images_only=True)
  assert len(images) == len(whole) > 0
  for index in range(len(whole)):
    assert images.records[index] == {field: whole.records[index][field] for field in ('image', 'image_id')}
