"""Damaged, hostile and unusual input of every sort: archives for every builder, datasets of your own, packed files for
`unpack`, DICOM files, commands and configs, weights files, workdirs of earlier runs.

    python -m benchmarks.fuzz --n=2000 --seed=0

An archive case damages a copy of a miniature phantom archive in one of 27 ways and builds it. There are two
accepted outcomes. Either the records follow the schema, and every missing image is counted in rejects.csv or left out
by rule. Or there is a declared error (ValueError, OSError) of one line that names the dataset or the file. Faults are:
any other exception, a value that the schema does not allow, an image that disappears silently, something written
outside of the folder, more than 10 s of processor time, more than 3 GiB. The other modules describe the accepted
outcomes of their cases.

Cases run in a child process, which is replaced if it hangs or dies. `--what` runs cases of one kind only,
`--only=NUMBER` repeats one case and prints its traceback.
"""

import argparse
import collections
import sys
import tempfile
from collections.abc import Sequence

import tqdm

from benchmarks.fuzz.cases import SHARES
from benchmarks.fuzz.runner import OUTCOMES, Runner


def run(numbers: Sequence[int], seed: int, seconds: float,
        what: str | None = None) -> tuple[dict[str, collections.Counter], list[tuple]]:
  """Runs cases. Returns ({kind: {outcome: count}}, [(number, what, kind, detail) of faults])."""
  table, faults = collections.defaultdict(collections.Counter), []
  with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
    runner = Runner(folder, seed, what, seconds)
    try:
      for number in tqdm.tqdm(numbers, unit=' cases', disable=None):
        name, kind, outcome, detail = runner.run(number)
        table[kind][outcome] += 1
        if outcome == 'FAULT':
          faults.append((number, name, kind, detail))
          tqdm.tqdm.write(f'case {number}, {name}, {kind}: {detail.splitlines()[0]}', sys.stderr)
    finally:
      runner.stop(seconds=5)
  return table, faults


def main(arguments: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.fuzz', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--n', type=int, default=2000, help='cases')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--seconds', type=float, default=10, help='processor time that a case may take')
  parser.add_argument('--what', choices=list(SHARES), help='only cases of this kind')
  parser.add_argument('--only', type=int, help='repeats this case alone')
  flags = parser.parse_args(arguments)
  numbers = range(flags.n) if flags.only is None else [flags.only]
  table, faults = run(numbers, flags.seed, flags.seconds, flags.what)
  print(f'{"":24}', *(f'{outcome:>8}' for outcome in OUTCOMES))
  for kind in sorted(table):
    print(f'{kind or "(hung or died)":24}', *(f'{table[kind][outcome]:8}' for outcome in OUTCOMES))
  print(f'{"all":24}', *(f'{sum(counts[outcome] for counts in table.values()):8}' for outcome in OUTCOMES))
  again = f' --what={flags.what}' if flags.what else ''
  for number, name, kind, detail in faults:
    print(f'case {number}, {name}, {kind}: {detail if flags.only is not None else detail.splitlines()[0]}')
    print(f'  python -m benchmarks.fuzz --seed={flags.seed}{again} --only={number}')
  print(f'fuzz: {len(numbers) - len(faults)} of {len(numbers)}')
  return int(bool(faults))


if __name__ == '__main__':
  sys.exit(main())
