"""What the tuberculosis sets of the National Library of Medicine share: names, clinical readings, masks of the lungs.

Each image is of another patient and bears his or her label in its name: CHNCXR_0327_1 has tuberculosis, _0 has not.
"""
import collections
import functools
import re

import numpy as np

from tfds_builders.common import dataset, images

FINDINGS = ('tuberculosis',)
CLASSES = ('background', 'lung')
NAME = r'(?P<name>(?:CHNCXR|MCUCXR)_\d{4}_[01])'
PICTURE = rf'(?:.*/)?CXR_png/{NAME}\.png'
READING = rf'(?:.*/)?ClinicalReadings/{NAME}\.txt'
# In the first line, or after 'Age:'.
AGE = re.compile(r'(?:\A[^\n\d]*|age:[ \t]*)(\d{1,5})(?!\d)\s*(y|m(?!al)|d)?', re.IGNORECASE)
SEX = re.compile(r'\b([fm])(?:\b|emale?|ale?)', re.IGNORECASE)
YEARS = {'': 1, 'y': 1, 'm': 1 / 12, 'd': 1 / 365.25}
OLDEST = 120  # years


def pick(listed, pattern):
  """Files of one kind: {name: path}, and how many more copies lie deeper (Kaggle's mirrors have double folders)."""
  found, copies = {}, 0
  for path in sorted(listed, key=lambda path: (path.count('/'), path)):
    match = re.fullmatch(pattern, path)
    if match and found.setdefault(match['name'], path) != path:
      copies += 1
  return found, copies


def make_entries(root, listed, masks):
  """Entries, rejects and what was left out of one of the sets.

  Args:
    masks: {name: [path, ...]} of the lung masks, one or two an image. An image without any is kept, all of its mask
      not annotated, and counted.
  """
  pictures, copies = pick(listed, PICTURE)
  readings, _ = pick(listed, READING)
  rejects = [dataset.Reject('', path, 'file that is no image of this archive')
             for path in listed if re.search(r'(?:^|/)CXR_png/', path) and not re.fullmatch(PICTURE, path)]
  rejects += [dataset.Reject(name, masks[name][0], 'mask without image') for name in sorted(masks.keys() - pictures)]
  entries = []
  for name, path in sorted(pictures.items()):
    ill, drawn = name.endswith('_1'), masks.get(name, [])
    said = read_reading((root / readings[name]).read_bytes()) if name in readings else {}
    entries.append(dataset.Entry(
      image_id=name, patient=name, path=root / path,
      stratum=f'{"tuberculosis" if ill else "normal"} {"with" if drawn else "without"} mask',
      mask=functools.partial(read_lungs, [root / mask for mask in drawn]),
      fields={'part': 'chest', 'present': [float(ill)], 'label_mask': [True], **said}))
  undrawn = len(pictures.keys() - masks)
  counts = {'second copy of an image': copies, 'lung mask: not in the archive, image kept': undrawn}
  return entries, rejects, {reason: count for reason, count in counts.items() if count}


def read_reading(raw):
  """Sex and age of a clinical reading: 'male 45yrs', or "Patient's Sex: F" and "Patient's Age: 027Y" on two lines.

  Returns:
    {'sex': 'F', 'M' or '', 'age': years, NaN where not stated}
  """
  text = raw.decode('utf-8-sig', 'replace').strip()
  aged = AGE.search(text)
  sexed = SEX.search(text[:aged.end()] + text[aged.end():].split('\n')[0] if aged else text.split('\n')[0])
  years = int(aged[1]) * YEARS[(aged[2] or '').lower()] if aged else dataset.UNKNOWN_AGE
  return {'sex': sexed[1].upper() if sexed else '', 'age': years if years <= OLDEST else dataset.UNKNOWN_AGE}


def read_lungs(paths):
  """HW uint8 of all the masks in one, 1 where any of them is above 0; without masks one pixel, not annotated."""
  if not paths:
    return np.full((1, 1), dataset.UNANNOTATED, np.uint8)
  first, *others = ((images.read(path) > 0).astype(np.uint8) for path in paths)
  return functools.reduce(np.maximum, (images.fit_mask(other, first.shape) for other in others), first)


def join(*kinds):
  """{name: [path, ...]} of several {name: path}."""
  joined = collections.defaultdict(list)
  for kind in kinds:
    for name, path in kind.items():
      joined[name].append(path)
  return dict(joined)
