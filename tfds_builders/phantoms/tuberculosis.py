"""Chests for the tuberculosis archives: with or without the disease, in many image shapes, with exact lung masks."""

import dataclasses

from tfds_builders.phantoms.exposure import Exposure, Radiograph, seeded_rng
from tfds_builders.phantoms.physics import Vendor
from tfds_builders.phantoms.studies import render_chest

CLASSES = ('ActiveTuberculosis', 'ActiveTuberculosis', 'ObsoletePulmonaryTuberculosis')


def choose_findings(seed: int, name: str, patient: int, ill: int) -> tuple[str, ...]:
  """The findings to request for a patient."""
  return (CLASSES[int(seeded_rng(seed, name, patient, 'kind').integers(len(CLASSES)))],) if ill else ()


def render_lungs(
    seed: int, name: str, exposure: Exposure, size: int, vendor: Vendor,
    shape: tuple[int, int] | None = None) -> Radiograph:
  """A chest cropped to `shape`, (rows, columns), or to a random shape per patient; both sides are at most `size`."""
  rng = seeded_rng(seed, name, exposure.patient, 'shape')
  rows, columns = shape or (round(size * rng.uniform(0.85, 1)), round(size * rng.uniform(0.85, 1)))
  whole = render_chest(seed, name, exposure, size, vendor)
  top, left = (size - rows) // 2, (size - columns) // 2
  cut = slice(top, top + rows), slice(left, left + columns)
  return dataclasses.replace(
    whole, image=whole.image[cut].copy(), masks={key: mask[cut] for key, mask in whole.masks.items()}, boxes=(),
    findings=frozenset(('tuberculosis',) if exposure.requested else ()))


def write_reading(sex: str, age: int | None, patient: int) -> str:
  """The first line of a clinical reading, in one of Shenzhen's spellings. The finding follows on the next line."""
  word = {'F': 'female', 'M': 'male'}[sex]
  return (f'{word} {age}yrs\n', f'{word.capitalize()}, {age}yrs.\n', f'{word} ,{age} years\n')[patient % 3]
