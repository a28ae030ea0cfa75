"""Where things lie: the repository, and real radiographs beside it, which are not part of it."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
XRAYS = ROOT.parent / 'shared' / 'xrays'
