"""The simulation of interval coverage, with few tables."""

from benchmarks import interval_coverage

SMALL = dict(patients=30, resamples=100, tables=200)


def test_the_bootstrap_covers_too_little_with_three_seeds_and_the_widened_interval_does_not():
  before, after = interval_coverage.measure(3, 'seeds only', **SMALL)
  assert before < 0.85 < 0.9 < after


def test_where_only_patients_differ_both_are_the_same():
  before, after = interval_coverage.measure(3, 'patients only', **SMALL)
  assert before == after > 0.85
