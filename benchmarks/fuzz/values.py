"""Unexpected contents for cells, attributes, names and JSON, and the types that the kinds of cases share."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# report((what, kind of damage)) is called before anything is read, so that a case that hangs has a name.
Report = Callable[[tuple[str, str]], None]
# run(rng, case folder, report) -> 'whole', 'rejects' or 'refused'.
Run = Callable[[np.random.Generator, pathlib.Path, Report], str]

WORDS = (
  '', ' ', 'nan', 'NaN', 'inf', '-inf', '1e999', '1e308', '-1', '0', '-0.0', '0x10', '1,5', '9' * 400, '9' * 5000,
  '²', '٣', 'a\nb', 'a\r\nb', '"', "'", '"a', 'a"b,c', '\t', '\0', '\ufeff', 'é', '🩻', '../../../etc/passwd',
  '/etc/passwd', 'C:\\con', '<b>&amp;</b>', '%s%n{0}', 'None', 'null', 'true', 'No Finding', '|', 'x' * 200_000)
NUMBERS = (float('nan'), float('inf'), float('-inf'), -1, 0, 1e308, -0.0, 10**400, 2**31, 2**63, 0.5)
LEAVES = (*WORDS[:-1], *NUMBERS, None, True, [], {}, [[]], '\ud800', ['a'], {'a': 1})  # of JSON
NAMES = ('a b.png', 'ä.png', "'.png", '".png', 'a\nb.png', '.hidden.png', '%s.png', '-rf.png', 'x' * 200 + '.png',
         'a.PNG', 'no_ending', '🩻.png', 'a\\..\\b.png', b'\xff\xfe.png', ' .png', '..png', 'a;b,c.png')


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
  return choices[rng.integers(len(choices))]


def some_bytes(rng: np.random.Generator, most: int) -> bytes:
  return rng.integers(0, 256, rng.integers(1, most + 1), 'uint8').tobytes()
