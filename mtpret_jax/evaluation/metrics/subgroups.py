"""Subgroups of the images: by sex, age band, view and body part."""

from collections.abc import Mapping

import numpy as np

SMALLEST = 20  # images; the score of a smaller group says little, so it is not listed
AGES = {'0 to 17': (0, 18), '18 to 39': (18, 40), '40 to 64': (40, 65), '65 and over': (65, np.inf)}  # years


def find_subgroups(rows: Mapping[str, np.ndarray]) -> list[tuple[str, str, np.ndarray]]:
  """[(attribute, group, members_N bool)] for each attribute with at least two groups of SMALLEST images or more.
  Images whose attribute is unknown are in no group."""
  attributes = {name: rows[name] for name in ('sex', 'view', 'part')} | {'age': find_age_bands(rows['age'])}
  found = []
  for attribute, values_N in attributes.items():
    members = {group: values_N == group for group in np.unique(values_N) if group}
    listed = [(attribute, str(group), rows_N) for group, rows_N in members.items() if rows_N.sum() >= SMALLEST]
    found += listed if len(listed) > 1 else []
  return found


def find_age_bands(age_N: np.ndarray) -> np.ndarray:
  """(N,) names of age bands, '' where the age is unknown (NaN)."""
  bands_N = np.full(len(age_N), '', object)
  for band, (low, high) in AGES.items():
    bands_N[(age_N >= low) & (age_N < high)] = band
  return bands_N.astype(str)
