"""How often the 95 % interval of a difference between two pretrainings contains the true difference.

    python -m benchmarks.interval_coverage

Scores are simulated: each has a part from every patient and one from its training seed, both normally distributed, and
the true difference is 0. The interval is that of the bootstrap alone, and that after the correction for few seeds
(`mtpret_jax/evaluation/paired.py`), which the tables print.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from mtpret_jax.evaluation.metrics.bootstrap import find_interval
from mtpret_jax.evaluation.paired import draw_seeds, widen_interval

Interval = tuple[float, float]

# variance of the difference: from the seeds, from the patients
CASES = {'seeds only': (1.0, 0.0), 'seeds 10 : patients 1': (1.0, 0.1), 'seeds 10 : patients 3': (1.0, 0.3),
         'seeds 1 : patients 1': (1.0, 1.0), 'patients only': (0.0, 1.0)}


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


def measure(seeds: int, case: str, **options: int) -> tuple[float, float]:
  """The share of simulated tables in which the interval of the bootstrap, and the widened one, contains 0."""
  pairs = np.array(list(simulate(seeds, *CASES[case], **options)))
  before, after = ((pairs[..., 0] <= 0) & (pairs[..., 1] >= 0)).mean(0)
  return float(before), float(after)


def main() -> None:
  parser = argparse.ArgumentParser(description='How often the interval of a difference contains the true difference.')
  parser.add_argument('--seeds', type=int, nargs='+', default=[2, 3, 5, 10], help='numbers of training seeds')
  parser.add_argument('--patients', type=int, default=100)
  parser.add_argument('--resamples', type=int, default=400)
  parser.add_argument('--tables', type=int, default=2000, help='simulated tables of each case')
  given = parser.parse_args()
  print('Coverage by where the variance comes from, bootstrap -> widened\n')
  print(f'| seeds | {" | ".join(CASES)} |\n|{"---|" * (1 + len(CASES))}')
  for seeds in tqdm(given.seeds, leave=False, disable=None):
    shares = [measure(seeds, case, patients=given.patients, resamples=given.resamples, tables=given.tables)
              for case in CASES]
    print(f'| {seeds} | {" | ".join(f"{100 * before:.0f} -> {100 * after:.0f} %" for before, after in shares)} |',
          flush=True)


if __name__ == '__main__':
  main()
