"""One case of the fuzzer: draws an input, damages it, reads it, and judges the result."""

import importlib
import pathlib
import shutil

import numpy as np

from benchmarks.fuzz import values

SHARES = {  # per cent
  'archives': 44, 'own': 6, 'readings': 4, 'packed': 6, 'configs': 15, 'weights': 10, 'runs': 5, 'dicom': 10}


class Fuzzer:
  """Draws and runs cases in `folder`. A case depends on the seed and its number alone, not on the cases before it.

  Args:
    what: a key of SHARES, or None for all of them by their shares.
    report: gets (what, kind of damage) of a case before anything is read.
  """

  def __init__(self, folder: str, seed: int, what: str | None, report: values.Report) -> None:
    self.folder, self.seed, self.what, self.report = pathlib.Path(folder).absolute(), seed, what, report
    self.run_case = {name: importlib.import_module(f'benchmarks.fuzz.{name}').make(self.folder / name)
                     for name in ([what] if what else SHARES)}

  def run(self, number: int) -> str:
    """Returns 'whole', 'rejects' or 'refused'. Raises `judge.Fault`, or whatever else should not happen."""
    rng = np.random.default_rng([self.seed, number])
    what = values.pick(rng, [name for name, share in SHARES.items() for _ in range(share)])
    case = self.folder / 'case'
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    try:
      return self.run_case[self.what or what](rng, case, self.report)
    finally:
      shutil.rmtree(case, ignore_errors=True)
