"""RSNA bone age in miniature."""

import itertools

from tfds_builders.phantoms.layout import Archive, save_png, write_rows
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.shot import Shot, dice
from tfds_builders.phantoms.studies import take_hand


def plan(seed):
  for patient in itertools.count():
    test = patient % 9 == 8
    folder = 'boneage-test-dataset' if test else 'boneage-training-dataset'
    number = 4360 + patient // 9 if test else 5000 + patient if patient > 2000 else 1377 + patient
    yield Shot(f'{folder}/{folder}/{number}.png', patient, 0)


def index(root, pairs):
  stem = lambda shot: shot.path.rsplit('/', 1)[1][:-4]  # noqa: E731
  train = [(stem(shot), int(seen.value), seen.sex == 'M') for shot, seen in pairs if 'training' in shot.path]
  test = [(stem(shot), seen.sex) for shot, seen in pairs if 'test' in shot.path]
  write_rows(root / 'boneage-training-dataset.csv', 'id,boneage,male', train)
  write_rows(root / 'boneage-test-dataset.csv', 'Case ID,Sex', test)
  for folder in ('boneage-training-dataset', 'boneage-test-dataset'):
    (root / folder / folder).mkdir(parents=True, exist_ok=True)


def take_hand_any_size(seed, name, shot, size, vendor):
  """The archive's pictures are of many sizes: 0.8 to 1.2 of the size asked for."""
  return take_hand(seed, name, shot, round(size * dice(seed, name, shot.patient, 'size').uniform(0.8, 1.2)), vendor)


ARCHIVE = Archive(
  Vendor(gain=1.1, gamma=0.75, detail=0.4, mark=0.06, shutter=0.35, low=6, high=99.3, blur=0.5),
  plan, take_hand_any_size, save_png, index,
)
