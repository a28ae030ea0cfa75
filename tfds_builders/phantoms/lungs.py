"""Chests of the tuberculosis sets: with or without the disease, in pictures of many shapes, each lung known exactly."""

import dataclasses

from tfds_builders.phantoms.shot import dice
from tfds_builders.phantoms.studies import take_chest

KINDS = ('ActiveTuberculosis', 'ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis')


def ask(seed, name, patient, ill):
  """What to draw of a patient, for Shot.asked."""
  return (KINDS[int(dice(seed, name, patient, 'kind').integers(len(KINDS)))],) if ill else ()


def take_lungs(seed, name, shot, size, vendor, shape=None):
  """A chest cut to `shape`, (rows, columns), or to one drawn for this patient; both sides at most `size`."""
  rng = dice(seed, name, shot.patient, 'shape')
  rows, columns = shape or (round(size * rng.uniform(0.85, 1)), round(size * rng.uniform(0.85, 1)))
  whole = take_chest(seed, name, shot, size, vendor)
  top, left = (size - rows) // 2, (size - columns) // 2
  cut = slice(top, top + rows), slice(left, left + columns)
  return dataclasses.replace(
    whole, image=whole.image[cut].copy(), masks={key: mask[cut] for key, mask in whole.masks.items()}, boxes=(),
    findings=frozenset(('tuberculosis',) if shot.asked else ()))


def read_out(sex, age, patient):
  """A clinical reading as in Shenzhen, where no two writers agree on the punctuation; the finding stands below."""
  word = {'F': 'female', 'M': 'male'}[sex]
  return (f'{word} {age}yrs\n', f'{word.capitalize()}, {age}yrs.\n', f'{word} ,{age} years\n')[patient % 3]
