"""Which version of a prepared dataset is opened, and which records of it."""

import collections

import pytest

from mtpret_jax.data import sources
from tfds_builders import build
from tfds_builders.common import index


@pytest.mark.parametrize('newest', ['1.9.0', '1.10.0'])
def test_the_newest_whole_version_is_opened(newest, tmp_path, monkeypatch):
  """An interrupted preparation leaves a folder with a longer name."""
  for version in ('1.2.0', newest, f'{newest}.incompleteA1B2C3'):
    (tmp_path / 'atlas' / '256' / version).mkdir(parents=True)
    (tmp_path / 'atlas' / '256' / version / 'dataset_info.json').touch()
  opened = []

  def note(folder):
    opened.append(folder.name)
    raise InterruptedError
  monkeypatch.setattr(sources.tfds, 'builder_from_directory', note)
  with pytest.raises(InterruptedError):
    sources.open_source('atlas', tmp_path, '256', 'train')
  assert opened == [newest]


def test_an_interrupted_preparation_is_none(tmp_path):
  folder = tmp_path / 'atlas' / '256' / '1.0.0.incompleteA1B2C3'
  folder.mkdir(parents=True)
  (folder / 'dataset_info.json').touch()
  with pytest.raises(FileNotFoundError, match='atlas is not prepared'):
    sources.open_source('atlas', tmp_path, '256', 'train')


# A share of the patients

GRADES = {'0': 50, '1': 30, '2': 9, '3': 3, '4': 1}  # patients of a stratum


def keep(fraction, seed=0):
  """{stratum: number of patients that the fraction keeps}"""
  shares = sources.rank_patients([{'patient': f'{grade} {i}', 'stratum': grade, 'image_id': f'{eye}'}
                                  for grade, patients in GRADES.items() for i in range(patients) for eye in 'lr'],
                                 seed)
  return {patient for patient, share in shares.items() if share < fraction}


@pytest.mark.parametrize('fraction', [1e-6, 0.01, 0.1, 0.3, 0.7, 1.0])
def test_a_fraction_keeps_its_share_of_each_stratum_rounded_up(fraction):
  kept = collections.Counter(patient.split()[0] for patient in keep(fraction))
  for grade, patients in GRADES.items():
    assert kept[grade] - 1 < round(fraction * patients, 9) <= kept[grade]


def test_a_smaller_fraction_lies_within_a_larger_one():
  fractions = [keep(fraction / 100) for fraction in range(1, 101)]
  assert all(small <= large for small, large in zip(fractions, fractions[1:], strict=False))


def test_a_seed_keeps_as_many_patients_of_each_stratum_but_others():
  kept = [keep(0.3, seed) for seed in range(4)]
  counts = [collections.Counter(patient.split()[0] for patient in patients) for patients in kept]
  assert counts == [counts[0]] * 4
  assert len(set(map(frozenset, kept))) == 4
  assert keep(0.1, 3) < keep(0.3, 3) and keep(1.0, 1) == keep(1.0, 2)


@pytest.mark.parametrize('rule', ['patient', 'paper'])
def test_of_a_prepared_dataset_a_fraction_keeps_whole_patients_of_each_stratum(rule, prepared):
  rows = [row for row in index.read(build.locate('knee_oa', prepared))
          if row['split' if rule == 'patient' else rule] == 'train']
  source = sources.open_source('knee_oa', prepared, '256', 'train', rule, fraction=0.01)
  kept = {source.records[position]['image_id'].decode() for position in range(len(source))}
  patients = collections.defaultdict(set)
  for row in rows:
    patients[row['stratum']].add(row['patient'])
  chosen = {row['patient'] for row in rows if row['image_id'] in kept}
  assert all(len(chosen & own) == 1 for own in patients.values())
  assert kept == {row['image_id'] for row in rows if row['patient'] in chosen}
