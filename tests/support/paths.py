"""Paths: the repository, and a folder of real radiographs beside it, which is not part of it."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
XRAYS = ROOT.parent / 'shared' / 'xrays'
