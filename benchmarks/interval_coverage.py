"""How often the 95 % interval of a difference between two pretrainings contains the true difference.

    python -m benchmarks.interval_coverage

Scores are simulated: each has a share of every patient and one of its training seed, both normally distributed, and the
true difference is known. The first share is the bootstrap's, the second that of the interval after the correction for
few seeds (`mtpret_jax/evaluation/paired.py`), which the tables print.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from mtpret_jax.evaluation.metrics.bootstrap import find_interval
from mtpret_jax.evaluation.paired import draw_seeds, widen_interval

Interval = tuple[float, float]

# variance of the difference: from the seeds, from the patients
CASES = {'only seeds': (1.0, 0.0), 'equal': (1.0, 1.0), 'patients 3 times as much': (1.0, 3.0),
         'only patients': (0.0, 1.0)}


def simulate(seeds: int, from_seeds: float, from_patients: float, *, patients: int, resamples: int,
             tables: int) -> Iterator[tuple[Interval, Interval]]:
  """Yields for each simulated table the interval of the bootstrap and the widened one; the true difference is 0."""
  rng = np.random.default_rng(0)
  weights_RN = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples) / patients
  for table in range(tables):
    patient_N = rng.normal(0, np.sqrt(from_patients * patients), patients)
    seed_S = rng.normal(0, np.sqrt(from_seeds * seeds), seeds)
    drawn_SR = seed_S[draw_seeds(seeds, resamples, table)]
    interval = find_interval(weights_RN @ patient_N + drawn_SR.mean(0))
    assert interval
    yield interval, widen_interval(interval, patient_N.mean() + seed_S)


def measure(seeds: int, case: str, **options: int) -> tuple[float, float, float]:
  """(coverage of the bootstrap, coverage of the widened interval, median ratio of their widths)."""
  pairs = np.array(list(simulate(seeds, *CASES[case], **options)))
  covered = ((pairs[..., 0] <= 0) & (pairs[..., 1] >= 0)).mean(0)
  widths = np.ptp(pairs, axis=-1)
  return float(covered[0]), float(covered[1]), float(np.median(widths[:, 1] / widths[:, 0]))


def main() -> None:
  parser = argparse.ArgumentParser(description='How often the interval of a difference contains the true difference.')
  parser.add_argument('--seeds', type=int, nargs='+', default=[2, 3, 5, 10], help='numbers of training seeds')
  parser.add_argument('--patients', type=int, default=100)
  parser.add_argument('--resamples', type=int, default=400)
  parser.add_argument('--tables', type=int, default=2000, help='simulated tables of each case')
  given = parser.parse_args()
  cases = [(seeds, case) for seeds in given.seeds for case in CASES]
  print('| seeds | variance | bootstrap | widened | width, widened / bootstrap |\n|---|---|---|---|---|')
  for seeds, case in tqdm(cases, leave=False, disable=None):
    before, after, ratio = measure(seeds, case, patients=given.patients, resamples=given.resamples,
                                   tables=given.tables)
    print(f'| {seeds} | {case} | {100 * before:.0f} % | {100 * after:.0f} % | {ratio:.2f} |', flush=True)


if __name__ == '__main__':
  main()
