"""Parts of the images that share a sex, an age band, a view or a part of the body."""

import numpy as np

SMALLEST = 20  # images; fewer say little and would only be read as if they did
AGES = {'0 to 17': (0, 18), '18 to 39': (18, 40), '40 to 64': (40, 65), '65 and over': (65, np.inf)}  # years


def find_subgroups(rows):
  """[(by, group, members_N)] of every attribute by which two groups or more have SMALLEST images; images of which it
  is not known are in none."""
  attributes = {name: rows[name] for name in ('sex', 'view', 'part')} | {'age': find_bands(rows['age'])}
  found = []
  for by, values_N in attributes.items():
    members = {group: values_N == group for group in np.unique(values_N) if group}
    members = [(by, str(group), rows_N) for group, rows_N in members.items() if rows_N.sum() >= SMALLEST]
    found += members if len(members) > 1 else []
  return found


def find_bands(age_N):
  """(N,) names of age bands, '' where the age is not known."""
  bands_N = np.full(len(age_N), '', object)
  for band, (low, high) in AGES.items():
    bands_N[(age_N >= low) & (age_N < high)] = band
  return bands_N.astype(str)
