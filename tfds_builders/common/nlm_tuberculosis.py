"""Shared by the tuberculosis datasets of the National Library of Medicine: names, clinical readings, lung masks.

Each image is of another patient. Its name ends with the label: CHNCXR_0327_1 has tuberculosis, CHNCXR_0001_0 does not.
"""
import collections
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfds_builders.common import dataset, images
from tfds_builders.common.masks import read_foreground

FINDINGS = ('tuberculosis',)
CLASSES = ('background', 'lung')
NAME = r'(?P<name>(?:CHNCXR|MCUCXR)_\d{4}_[01])'
IMAGE = rf'(?:.*/)?CXR_png/{NAME}\.png'
READING = rf'(?:.*/)?ClinicalReadings/{NAME}\.txt'
# The age stands on the first line or after 'Age:'.
AGE = re.compile(r'(?:\A[^\n\d]*|age:[ \t]*)(\d{1,5})(?!\d)\s*(y|m(?!al)|d)?', re.IGNORECASE)
SEX = re.compile(r'\b([fm])(?:\b|emale?|ale?)', re.IGNORECASE)
STRETCH = 0.15  # some copies hold images squashed to a square, with masks that are not: aspects differ by up to 12 %
YEARS = {'': 1, 'y': 1, 'm': 1 / 12, 'd': 1 / 365.25}


def find_files(files: Iterable[str], pattern: str) -> tuple[dict[str, str], int]:
  """The files that match a pattern: {name: path}, and the number of further copies.

  Kaggle's mirrors repeat folders inside each other; the copy with the shortest path counts.
  """
  found: dict[str, str] = {}
  copies = 0
  for path in sorted(files, key=lambda path: (path.count('/'), path)):
    match = re.fullmatch(pattern, path)
    if match and found.setdefault(match['name'], path) != path:
      copies += 1
  return found, copies


def make_entries(
    root: pathlib.Path, files: Mapping[str, int], masks: Mapping[str, Sequence[str]]) -> dataset.Contents:
  """Entries, rejects and counts of what is left out, for one of these datasets.

  Args:
    root: of the archive.
    files: {relative path: bytes}.
    masks: {name: [path, ...]} of the lung masks, one or two per image. An image without a mask is kept, with all of
      its mask not annotated, and counted.
  """
  pictures, copies = find_files(files, IMAGE)
  readings, _ = find_files(files, READING)
  rejects = [dataset.Reject('', path, 'not an image of this archive')
             for path in files if re.search(r'(?:^|/)CXR_png/', path) and not re.fullmatch(IMAGE, path)]
  rejects += [dataset.Reject(name, masks[name][0], 'mask without image') for name in sorted(masks.keys() - pictures)]
  entries = []
  for name, path in sorted(pictures.items()):
    ill, mask_paths = name.endswith('_1'), masks.get(name, [])
    reading = parse_reading((root / readings[name]).read_bytes()) if name in readings else {}
    entries.append(dataset.Entry(
      image_id=name, patient=name, path=root / path,
      stratum=f'{"tuberculosis" if ill else "normal"} {"with" if mask_paths else "without"} mask',
      mask=functools.partial(read_lungs, [root / mask for mask in mask_paths]) if mask_paths else None,
      mask_stretch=STRETCH,
      fields={'part': 'chest', 'present': [float(ill)], 'label_mask': [True], **reading}))
  without_mask = len(pictures.keys() - masks)
  counts = {'second copy of an image': copies, 'lung mask: not in the archive, image kept': without_mask}
  return entries, rejects, {reason: count for reason, count in counts.items() if count}


def parse_reading(raw: bytes) -> dict[str, Any]:
  """Sex and age from a clinical reading.

  The Shenzhen set writes 'male 45yrs'; Montgomery writes "Patient's Sex: F" and "Patient's Age: 027Y" on two lines.

  Returns:
    {'sex': 'F', 'M' or '', 'age': years, NaN if not stated}
  """
  text = raw.decode('utf-8-sig', 'replace').strip()
  age = AGE.search(text)
  sex = SEX.search(text[:age.end()] + text[age.end():].split('\n')[0] if age else text.split('\n')[0])
  years = int(age[1]) * YEARS[(age[2] or '').lower()] if age else dataset.UNKNOWN_AGE
  return {'sex': sex[1].upper() if sex else '', 'age': years if years <= dataset.MAX_AGE else dataset.UNKNOWN_AGE}


def read_lungs(paths: Sequence[pathlib.Path]) -> np.ndarray:
  """HW uint8, 1 where any of the masks is not black."""
  first, *others = (read_foreground(path) for path in paths)
  return functools.reduce(np.maximum, (images.fit_mask(other, first.shape, STRETCH) for other in others), first)


def merge(*mappings: Mapping[str, str]) -> dict[str, list[str]]:
  """Merges several {name: path} into {name: [path, ...]}."""
  merged = collections.defaultdict(list)
  for mapping in mappings:
    for name, path in mapping.items():
      merged[name].append(path)
  return dict(merged)
