"""One case of the fuzz: what is handed in is drawn, damaged, read, and judged by what comes of it."""
import importlib
import pathlib
import shutil

import numpy as np

from benchmarks.fuzz import values

SHARES = {'archives': 48, 'own': 6, 'packed': 6, 'configs': 15, 'weights': 10, 'runs': 5, 'dicom': 10}  # per cent


class Fuzz:
  """Draws and runs cases below `folder`; case `number` of a seed is the same wherever and after whatever it runs.

  `what`: one of SHARES, or None for all of them by their shares. `tell` is told (what, kind of damage) of a case before
  anything is read.
  """

  def __init__(self, folder, seed, what, tell):
    self.folder, self.seed, self.what, self.tell = pathlib.Path(folder).absolute(), seed, what, tell
    self.run_case = {name: importlib.import_module(f'benchmarks.fuzz.{name}').make(self.folder / name)
                     for name in ([what] if what else SHARES)}

  def run(self, number):
    """'whole', 'rejects' or 'refused'; raises judge.Fault and whatever should not happen."""
    rng = np.random.default_rng([self.seed, number])
    what = values.pick(rng, [name for name, share in SHARES.items() for _ in range(share)])
    case = self.folder / 'case'
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    try:
      return self.run_case[self.what or what](rng, case, self.tell)
    finally:
      shutil.rmtree(case, ignore_errors=True)
